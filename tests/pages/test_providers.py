"""The provider's form comes from its driver, and is tried on a real folder before it is saved."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from providers_app import connections, health
from providers_app.drivers.base import Survey
from providers_app.drivers.errors import Unreachable
from providers_app.forms import ProviderForm
from providers_app.models import Installation, Provider
from templates_app import pages
from templates_app.models.work import error
from tests.pages.conftest import World


@pytest.fixture
def folder(tmp_path: Path, settings: Any) -> Path:
    settings.ALLOWED_ROOTS = [str(tmp_path)]
    (tmp_path / "host").mkdir()
    return tmp_path / "host"


def data(folder: Path, **more: str) -> dict[str, str]:
    return {"name": "host", "kind": "directory", "set-path": str(folder), "max_copies": "8", **more}


def test_each_kind_brings_its_own_fields(administrator: Client, db: None) -> None:
    directory = administrator.get(reverse("provider-new")).content.decode()
    simulator = administrator.get(reverse("provider-new") + "?kind=simulator").content.decode()
    assert 'name="set-path"' in directory
    assert simulator.count('name="set-') > directory.count('name="set-')
    assert administrator.get(reverse("provider-new") + "?kind=nonsense").status_code == 404


def test_another_kind_keeps_what_every_kind_has(administrator: Client, db: None) -> None:
    asked = {"kind": "simulator", "name": "rack-1", "bandwidth": "7", "max_copies": "3", "set-path": "/x"}
    html = administrator.get(reverse("provider-new"), asked).content.decode()
    for value in ('name="name" value="rack-1"', 'name="bandwidth" value="7"', 'name="max_copies" value="3"'):
        assert value in html
    assert 'value="/x"' not in html
    assert "This field is required" not in html


def test_an_unsaved_form_is_tried_and_nothing_is_changed(
    folder: Path, administrator: Client, db: None
) -> None:
    administrator.post(reverse("provider-new"), data(folder))
    row = Provider.objects.get()
    before = sorted(folder.rglob("*"))
    html = administrator.post(reverse("provider-test"), data(folder, provider=str(row.pk))).content.decode()
    assert "It answers." in html
    assert sorted(folder.rglob("*")) == before
    assert Provider.objects.get().revision == row.revision


def test_a_form_that_can_not_work_is_answered_with_the_cause(
    folder: Path, administrator: Client, db: None
) -> None:
    html = administrator.post(reverse("provider-test"), data(folder / "none")).content.decode()
    assert "It answers." not in html
    assert 'class="alert alert-danger' in html
    html = administrator.post(reverse("provider-test"), data(folder, **{"set-path": ""})).content.decode()
    assert "Folder: This field is required." in html


def test_a_provider_is_added_once_and_changed_later(folder: Path, administrator: Client, db: None) -> None:
    html = administrator.post(reverse("provider-new"), data(folder), follow=True).content.decode()
    row = Provider.objects.get()
    assert "host was added and is being checked." in html
    again = administrator.post(reverse("provider-new"), data(folder, name="twin")).content.decode()
    assert "registered already, as host" in again
    edit = reverse("provider-edit", args=[row.pk])
    assert f'value="{folder}"' in administrator.get(edit).content.decode()
    administrator.post(edit, data(folder, bandwidth="5", max_copies="3"))
    row.refresh_from_db()
    assert (row.bandwidth_limit, row.max_copies) == (5 << 20, 3)


def test_a_hostile_name_or_path_is_refused_with_a_sentence(
    folder: Path, administrator: Client, db: None
) -> None:
    html = administrator.post(reverse("provider-new"), data(folder, name="<b>x</b>")).content.decode()
    assert "Use letters, digits" in html
    html = administrator.post(reverse("provider-new"), data(folder, **{"set-path": "/etc"})).content.decode()
    assert 'class="alert alert-danger' in html
    assert not Provider.objects.exists()


def test_check_now_says_what_came_of_it(
    world: World, tmp_path: Path, settings: Any, administrator: Client
) -> None:
    settings.ALLOWED_ROOTS = [str(tmp_path)]
    row = world.provider("gone", settings={"path": str(tmp_path / "gone"), "networks": ""})
    response = administrator.post(reverse("provider-check", args=[row.pk]))
    assert response.status_code == 200
    assert f'id="provider-{row.pk}-state"' in response.content.decode()
    row.refresh_from_db()
    assert row.error_code
    assert row.error_text in response.content.decode()


def test_a_limit_to_the_byte_is_not_rounded_by_saving_the_form(
    folder: Path, administrator: Client, db: None
) -> None:
    row = connections.add("far", "directory", {"path": str(folder)}, limits={"bandwidth_limit": 500_000})
    form = ProviderForm("directory", provider=row)
    sent = {"set-path": str(folder), "max_copies": 3, "bandwidth": form.initial["bandwidth"]}
    administrator.post(reverse("provider-edit", args=[row.pk]), sent)
    row.refresh_from_db()
    assert (row.bandwidth_limit, row.max_copies) == (500_000, 3)
    administrator.post(reverse("provider-edit", args=[row.pk]), sent | {"bandwidth": "1.5"})
    row.refresh_from_db()
    assert row.bandwidth_limit == 1_572_864


def test_a_form_that_was_opened_before_another_change_overwrites_nothing(
    folder: Path, administrator: Client, db: None
) -> None:
    row = connections.add("far", "directory", {"path": str(folder)})
    edit = reverse("provider-edit", args=[row.pk])
    was = administrator.get(edit).context["form"].initial["was"]
    sent = {"set-path": str(folder), "max_copies": 3, "was": was}
    connections.limit(row, {"max_copies": 5})
    for _ in range(2):
        html = administrator.post(edit, sent).content.decode()
        assert "far was changed by somebody else just now." in html
        assert f'name="was" value="{was}"' in html
    assert Provider.objects.get().max_copies == 5
    administrator.post(edit, sent | {"was": administrator.get(edit).context["form"].initial["was"]})
    assert Provider.objects.get().max_copies == 3


def test_all_copies_together_get_a_limit(administrator: Client, db: None) -> None:
    url = reverse("providers-limits")
    assert 'value="0"' in administrator.get(url).content.decode()
    html = administrator.post(url, {"bandwidth": "-1"}).content.decode()
    assert "greater than or equal to 0" in html
    assert "The limit was changed." in administrator.post(url, {"bandwidth": "250"}).content.decode()
    assert Installation.bandwidth() == 250 << 20
    assert 'value="250"' in administrator.get(url).content.decode()


@pytest.mark.parametrize(
    ("action", "said"),
    [("Mount the share.", "Mount the share."), ("", "See that the host is up and can be reached;")],
    ids=["told by its driver", "not told"],
)
def test_what_keeps_a_provider_away_is_said_with_what_to_do(
    world: World, administrator: Client, action: str, said: str
) -> None:
    row = world.provider("host")
    for _ in range(3):
        health.record(row, Unreachable("The folder is gone.", action=action))
    for url in (reverse("overview"), reverse("provider", args=[row.pk])):
        assert f"The folder is gone. {said}" in administrator.get(url).content.decode(), url


def test_what_to_do_goes_with_its_cause(world: World) -> None:
    row = world.provider("host")
    fault = Unreachable("The folder is gone.", action="Mount the share.")
    for end in (
        lambda: health.record(row, Survey(host_id="host")),
        lambda: health.suspect(row, "STALLED", "It takes no data."),
        lambda: connections.enable(row, True),
    ):
        health.record(row, fault)
        assert row.error_action == "Mount the share."
        end()
        assert row.error_action == ""


def test_a_provider_tells_what_happened_there(world: World, viewer: Client) -> None:
    row = world.provider("host")
    template = world.template("win11", world.provider("source"))
    target = world.target(template, row)
    before = viewer.get(reverse("provider", args=[row.pk])).content.decode()
    assert "Nothing yet." in before
    target.advance("failed", **error("CONTENT_LOST", "The image is gone.", "Retry."))
    template.targets.get(provider=template.source_provider).advance("failed", "Of another host.")
    page = viewer.get(reverse("provider", args=[row.pk])).content.decode()
    assert "The image is gone." in page
    assert "win11 on host" in page
    assert "Of another host." not in page
    sign = re.compile(rf'id="sign-provider-events-{row.pk}"[^>]*data-sign="([^"]*)"')
    told = sign.findall(pages.frame(f"provider:{row.pk}", set()).parts)
    assert told == sign.findall(page) != sign.findall(before)
