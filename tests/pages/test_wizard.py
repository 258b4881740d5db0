"""The wizard keeps nothing but the page until Finish."""

from __future__ import annotations

import re

import pytest
from django.test import Client
from django.urls import reverse

from providers_app import health
from providers_app.models import Inventory, Provider
from templates_app.models import Template
from tests.pages.conftest import World

DISK = {"ref": "d", "name": "disk.raw", "format": "raw", "size": 1, "virtual_size": 1, "allocated": 1}
VM = {"ref": "v", "name": "golden", "disks": [DISK], "memory_mib": 1, "vcpus": 1, "network": "", "mark": None}


@pytest.fixture
def source(world: World, monkeypatch: pytest.MonkeyPatch) -> Provider:
    """A host whose VMs are known; asking it again changes nothing."""
    monkeypatch.setattr(health, "check", lambda providers: {})
    provider = world.provider("source")
    vms = [{**VM, "power": "off", "problem": ""}, {**VM, "name": "running", "power": "on", "problem": ""}]
    Inventory.objects.filter(provider=provider).update(vms=vms)
    return provider


def fields(html: str) -> dict[str, list[str]]:
    """What the page would send: hidden fields, and what is ticked."""
    found: dict[str, list[str]] = {}
    for tag in re.findall(r"<input[^>]+>", html[html.index('id="wizard"') :]):
        known = dict(re.findall(r'(\w+)="([^"]*)"', tag))
        sent = (
            known.get("type") == "hidden"
            or " checked" in tag
            or known.get("id") in ("id_name", "id_max_concurrent")
        )
        if sent and known.get("name") and known["name"] != "csrfmiddlewaretoken":
            found.setdefault(known["name"], []).append(known.get("value", "on"))
    return found


def step(client: Client, html: str, go: str, **more: object) -> str:
    response = client.post(reverse("template-new"), {**fields(html), "go": go, **more}, follow=True)
    assert response.status_code == 200
    return response.content.decode()


def test_four_steps_and_finish_order_what_was_chosen(
    source: Provider, world: World, operator: Client
) -> None:
    left, right = world.provider("left"), world.provider("right")
    html = operator.get(reverse("template-new")).content.decode()
    html = step(operator, html, "next", source=f"{source.pk}:golden", name="win11")
    html = step(operator, html, "next", clone_method="linked")
    html = step(operator, html, "add", available=[left.pk])
    html = step(operator, html, "add_all")
    html = step(operator, html, "remove", chosen=[left.pk])
    html = step(operator, html, "next", max_concurrent=2)
    assert "golden" in html
    assert "Linked clone" in html
    assert not Template.objects.exists()
    html = step(operator, html, "finish")
    template = Template.objects.get(name="win11")
    assert (template.clone_method, template.max_concurrent) == ("linked", 2)
    assert set(template.targets.values_list("provider", flat=True)) == {source.pk, right.pk}
    assert "win11 is being created and then distributed." in html


def test_a_host_that_is_marked_but_not_added_is_added_by_next(
    source: Provider, world: World, operator: Client
) -> None:
    left, right = world.provider("left"), world.provider("right")
    html = operator.get(reverse("template-new")).content.decode()
    html = step(operator, html, "next", source=f"{source.pk}:golden", name="win11")
    html = step(operator, html, "next")
    html = step(operator, html, "add", available=[left.pk])
    html = step(operator, html, "next", available=[right.pk])
    assert fields(html)["targets"] == [str(left.pk), str(right.pk)]
    step(operator, html, "finish")
    targets = Template.objects.get(name="win11").targets
    assert set(targets.values_list("provider", flat=True)) == {source.pk, left.pk, right.pk}


def test_hosts_without_a_vm_share_one_line(source: Provider, world: World, operator: Client) -> None:
    for name in ("left", "right"):
        world.provider(name)
    html = operator.get(reverse("template-new")).content.decode()
    assert "No VM on: left, right." in html
    assert html.count("list-group-item") == 2


def test_a_step_with_a_fault_is_shown_again_with_its_sentence(
    source: Provider, world: World, operator: Client
) -> None:
    world.template("taken", source)
    html = operator.get(reverse("template-new")).content.decode()
    assert "Choose a VM." in step(operator, html, "next", name="x")
    assert "exists already" in step(operator, html, "next", source=f"{source.pk}:golden", name="taken")
    assert "Use letters, digits" in step(operator, html, "next", source=f"{source.pk}:golden", name="<b>")


def test_back_keeps_what_was_chosen(source: Provider, operator: Client) -> None:
    html = operator.get(reverse("template-new")).content.decode()
    html = step(operator, html, "next", source=f"{source.pk}:golden", name="win11")
    html = step(operator, html, "source")
    assert fields(html)["name"] == ["win11"]
    assert fields(html)["source"] == [f"{source.pk}:golden"]


def test_what_is_refused_at_finish_is_said_on_the_summary(source: Provider, operator: Client) -> None:
    html = operator.get(reverse("template-new")).content.decode()
    for sent in ({"source": f"{source.pk}:running", "name": "win11"}, {}, {}):
        html = step(operator, html, "next", **sent)
    assert "running is running." in step(operator, html, "finish")
    assert not Template.objects.exists()


def test_a_vm_that_runs_can_not_be_chosen(source: Provider, operator: Client) -> None:
    html = operator.get(reverse("template-new")).content.decode()
    assert re.search(rf'value="{source.pk}:running"[^>]* disabled', html)


@pytest.mark.parametrize(
    "sent", [{"step": "nonsense"}, {"source": "9:gone"}, {"source": "x"}, {"targets": ["x", "-1"]}]
)
def test_nonsense_is_answered_by_the_wizard(
    sent: dict[str, object], source: Provider, operator: Client
) -> None:
    for go in ("next", "finish", "add", "clone", "nonsense"):
        assert operator.post(reverse("template-new"), {"go": go, **sent}).status_code == 200
