"""Live updates are the parts of the pages: the same HTML, by id, never older than what is shown."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from providers_app.models import Provider
from rasweb.stamps import stamp
from templates_app import pages
from templates_app.models import Template
from tests.pages.conftest import HOSTILE, World

ALL_TOPICS = ["templates", "providers", "guests", "activity", "chrome"]


def ids(html: str) -> set[str]:
    return set(re.findall(r'\sid="([^"]+)"[^>]*data-v=', html))


def without_v(html: str) -> str:
    return re.sub(r'data-v="\d+"', "", html)


def signs(html: str) -> dict[str, str]:
    return dict(re.findall(r'id="sign-([^"]+)"[^>]*data-sign="([^"]*)"', html))


def sign_in(topic: str, key: str) -> str:
    return signs(pages.frame(topic, set()).parts)[key]


def listeners(html: str, event: str) -> set[str]:
    """The islands of a page that are read again upon ``event``."""
    found = re.findall(r'id="([^"]+)"[^>]*hx-trigger="([^"]*)"[^>]*hx-select="#([^"]+)"', html)
    return {
        name
        for name, trigger, shown in found
        if shown == name and f"{event} from:body" in trigger.split(", ")
    }


def keys(template: Template) -> set[tuple[str, int]]:
    return {
        ("template", template.pk),
        *(("distributiontarget", target.pk) for target in template.targets.all()),
        *(("guestvm", guest.pk) for guest in template.guests.all()),
        *(("recreaterun", run.pk) for run in template.runs.all()),
        *(("provider", provider.pk) for provider in Provider.objects.all()),
    }


@pytest.mark.parametrize(
    ("topic", "url"),
    [
        ("templates", "/templates/"),
        ("template:{}", "/templates/{}/"),
        ("providers", "/providers/"),
        ("guests", "/guests/"),
    ],
)
def test_a_frame_holds_the_very_parts_of_its_page(
    topic: str, url: str, busy: Template, viewer: Client
) -> None:
    frame = pages.frame(topic.format(busy.pk), keys(busy))
    page = without_v(viewer.get(url.format(busy.pk)).content.decode())
    shown = [part for part in re.split(r"(?=<(?:span|div) id=)", without_v(frame.parts)) if part]
    on_page = [part for part in shown if re.match(r'<\w+ id="([^"]+)"', part).group(1) in page]  # type: ignore[union-attr]  # split there
    assert len(on_page) > 3
    assert all(part.strip() in page for part in on_page), [
        part for part in on_page if part.strip() not in page
    ]
    assert not frame.refresh


def test_each_part_tells_when_it_was_read(busy: Template) -> None:
    before = stamp()
    for topic in [*ALL_TOPICS, f"template:{busy.pk}", f"provider:{busy.source_provider_id}"]:
        html = pages.frame(topic, keys(busy)).parts
        stamps = [int(v) for v in re.findall(r'data-v="(\d+)"', html)]
        assert stamps, topic
        assert all(v > before for v in stamps), topic


def test_stamps_never_go_back_whatever_the_clock_does(monkeypatch: pytest.MonkeyPatch) -> None:
    first = stamp()
    monkeypatch.setattr("time.time_ns", lambda: 0)
    assert stamp() > first


def test_a_change_of_a_list_changes_its_sign(world: World) -> None:
    source = world.provider("source")
    template, before = world.template("one", source), sign_in("templates", "templates")
    other = world.template("two", source)
    after = sign_in("templates", "templates")
    assert after != before
    other.targets.all().delete()
    Template.objects.filter(pk=other.pk).update(phase="deleting", current_version=None)
    other.delete()
    assert sign_in("templates", "templates") == before
    assert template.pk


def test_the_overview_hears_of_a_provider_that_is_lost_and_of_one_that_is_back(
    world: World, viewer: Client
) -> None:
    host = world.provider("host")
    seen = [sign_in("providers", "reach")]
    for fields in (
        {"reachability": "not_available", "error_text": "It did not answer."},
        {"error_text": "It refused the key."},
        {"enabled": False},
        {"enabled": True, "reachability": "online", "error_text": ""},
    ):
        host.touch(**fields)
        seen.append(sign_in("providers", "reach"))
        assert signs(viewer.get("/").content.decode())["reach"] == seen[-1]
    assert len(set(seen[:-1])) == 4
    assert seen[-1] == seen[0]


def test_a_check_that_finds_nothing_new_lets_the_overview_be(world: World) -> None:
    host = world.provider("host")
    before = sign_in("providers", "reach")
    host.touch(last_seen_at=timezone.now(), last_checked_at=timezone.now(), free_bytes=1)
    assert sign_in("providers", "reach") == before


def test_a_provider_that_is_lost_is_told_of_each_of_its_targets_on_its_page(world: World) -> None:
    host = world.provider("host")
    target = world.template("win11", host).targets.get()
    host.touch(reachability="not_available")
    parts = pages.frame(f"provider:{host.pk}", {("provider", host.pk)}).parts
    assert re.search(rf'id="target-{target.pk}-state".*?Not available', parts)
    assert re.search(rf'id="target-{target.pk}-action".*?Check now', parts, re.DOTALL)


def test_each_check_of_a_provider_makes_its_page_read_what_is_there_again(
    world: World, viewer: Client
) -> None:
    host = world.provider("host", last_checked_at=None)
    key, page = f"provider-{host.pk}", viewer.get(f"/providers/{host.pk}/").content.decode()
    assert signs(page)[key] == sign_in(f"provider:{host.pk}", key)
    assert listeners(page, f"live:{key}") == {"inventory", "summary"}
    host.touch(last_checked_at=timezone.now())
    assert sign_in(f"provider:{host.pk}", key) != signs(page)[key]


def test_the_summary_of_a_template_is_read_again_when_a_version_was_sealed(
    busy: Template, viewer: Client
) -> None:
    page = viewer.get(f"/templates/{busy.pk}/").content.decode()
    assert f"summary-{busy.pk}" in listeners(page, "live:template")


def test_a_row_that_vanished_makes_the_page_read_again(busy: Template) -> None:
    assert pages.frame("templates", {("distributiontarget", 999_999)}).refresh
    assert pages.frame("template:999999", {("template", 999_999)}).refresh
    assert pages.frame("no such topic", set()).refresh


def test_what_changed_lately_is_found_without_any_poke(busy: Template) -> None:
    now = timezone.now()
    found = pages.recent(now - timedelta(minutes=5))
    assert ("template", busy.pk) in found[f"template:{busy.pk}"]
    assert {"templates", "providers", "guests", "activity", "chrome"} <= set(found)
    assert not pages.recent(now + timedelta(minutes=5))


def test_a_provider_that_nobody_checks_any_more_is_told_when_it_ceases_to_be_green(world: World) -> None:
    now = timezone.now()
    host = world.provider("host", last_seen_at=Provider.stale_before() - timedelta(seconds=30))
    fresh = world.provider("fresh")
    Provider.objects.update(changed_at=now - timedelta(hours=1))
    found = pages.recent(now - timedelta(minutes=1))
    assert found["providers"] == {("provider", host.pk)}
    assert ("provider", host.pk) in found["chrome"]
    assert f"provider:{fresh.pk}" not in found
    assert not pages.recent(now - timedelta(seconds=1))


def test_frames_show_hostile_texts_as_text(world: World) -> None:
    source = world.provider("source", error_text=HOSTILE)
    template = world.template("win11", source, error_text=HOSTILE)
    world.target(template, world.provider("other"), "failed", error_text=HOSTILE, error_action=HOSTILE)
    world.guest(template, source, phase="create_failed", error_text=HOSTILE)
    for topic in [*ALL_TOPICS, f"template:{template.pk}", f"provider:{source.pk}"]:
        assert "<img" not in pages.frame(topic, keys(template)).parts, topic


def test_a_frame_costs_the_same_queries_for_many_rows(world: World) -> None:
    source = world.provider("source")
    templates = [world.template(f"t{number}", source) for number in range(5)]

    def cost(rows: list[Template]) -> int:
        with CaptureQueriesContext(connection) as queries:
            pages.frame("templates", {("template", row.pk) for row in rows})
        return len(queries)

    assert cost(templates) == cost(templates[:1]) <= 6


@pytest.mark.parametrize(
    "address",
    [
        "/templates/?distribution=OK",
        "/templates/?status=ready",
        "/templates/?sort=-status",
        "/guests/?state=ready",
    ],
)
def test_a_filtered_or_sorted_list_is_read_again_when_a_row_moved(
    world: World, viewer: Client, address: str
) -> None:
    source = world.provider("source")
    template = world.template("win11", source)
    guest, topic = world.guest(template, source), address.split("/")[1]
    before = signs(viewer.get(address).content.decode())
    assert f"{topic}-moved" in before
    assert before.items() <= signs(pages.frame(topic, set()).parts).items()
    template.targets.get().advance("failed")
    guest.advance("lost")
    assert sign_in(topic, f"{topic}-moved") != before[f"{topic}-moved"]


@pytest.mark.parametrize("address", ["/templates/", "/templates/?q=win", "/templates/?sort=name", "/guests/"])
def test_a_list_by_name_is_not_read_again_whenever_a_row_moves(
    busy: Template, viewer: Client, address: str
) -> None:
    topic = address.split("/")[1]
    assert f"{topic}-moved" not in signs(viewer.get(address).content.decode())


@pytest.mark.parametrize(
    ("address", "changed"),
    [
        ("?state=Not+available", {"reachability": "not_available"}),
        ("?state=Ready&q=host", {"enabled": False}),
        ("?sort=state", {"reachability": "not_available"}),
        ("?sort=-space", {"free_bytes": 1}),
        ("?sort=seen", {"last_seen_at": timezone.now() - timedelta(days=1)}),
    ],
)
def test_a_filtered_or_sorted_list_of_providers_follows_the_checks(
    world: World, viewer: Client, address: str, changed: dict[str, object]
) -> None:
    world.provider("host-1")
    host = world.provider("host-2")
    page = viewer.get(f"/providers/{address}").content.decode()
    before = signs(page)
    assert "providers" in listeners(page, "live:providers")
    assert before.items() <= signs(pages.frame("providers", set()).parts).items()
    host.touch(**changed)
    assert not before.items() <= signs(pages.frame("providers", set()).parts).items()


def test_a_list_of_providers_by_name_stays_through_the_checks(world: World, viewer: Client) -> None:
    world.provider("host")
    for address in ("/providers/", "/providers/?q=ho", "/providers/?sort=-name"):
        assert set(signs(viewer.get(address).content.decode())) & {"reach", "seen", "space"} == set()


def test_the_list_of_providers_is_told_at_the_same_cost_however_long_it_is(world: World) -> None:
    hosts = [world.provider(f"host-{number}") for number in range(5)]

    def cost() -> int:
        with CaptureQueriesContext(connection) as queries:
            pages.frame("providers", {("provider", hosts[0].pk)})
        return len(queries)

    many = cost()
    Provider.objects.exclude(pk=hosts[0].pk).delete()
    assert cost() == many <= 3


@pytest.mark.parametrize(
    ("address", "topic", "key", "rows"),
    [
        ("/", "activity", "activity", "distributiontarget"),
        ("/", "providers", "reach", "provider"),
        ("/activity/", "activity", "activity", "distributiontarget"),
        ("/templates/?sort=status", "templates", "templates-moved", "template"),
        ("/guests/?state=ready", "guests", "guests-moved", "guestvm"),
        ("/templates/{template}/", "template:{template}", "template", "template"),
        ("/providers/{host}/", "provider:{host}", "provider-events-{host}", "event"),
        ("/providers/{host}/", "provider:{host}", "provider-{host}", "provider"),
        ("/providers/?state=Ready", "providers", "reach", "provider"),
    ],
)
def test_what_changes_while_a_page_is_read_is_not_hidden_by_its_sign(
    world: World, viewer: Client, address: str, topic: str, key: str, rows: str
) -> None:
    host = world.provider("host")
    template = world.template("win11", host)
    world.guest(template, host)
    changed: list[str] = []

    def change(execute: Any, sql: str, *args: Any) -> Any:
        answer = execute(sql, *args)
        if not changed and re.search(rf'FROM "\w+_app_{rows}"', sql):
            changed.append(sql)
            template.targets.get().advance("failed")
            host.touch(reachability="not_available")
        return answer

    address, topic, key = (text.format(template=template.pk, host=host.pk) for text in (address, topic, key))
    with connection.execute_wrapper(change):
        page = viewer.get(address).content.decode()
    assert changed
    assert signs(page)[key] != sign_in(topic, key)
