"""What stands beside the words: how much is done, how long it takes, since when, and why not."""

from __future__ import annotations

import re
from datetime import timedelta

import pytest
from django.test import Client
from django.utils import timezone

from templates_app import activity, looks, pages
from templates_app.models import DistributionTarget, Template
from templates_app.status import template_status
from tests.pages.conftest import World

GIB, MIB = 1 << 30, 1 << 20


@pytest.fixture
def template(world: World) -> Template:
    return world.template("win11", world.provider("source"))


@pytest.fixture
def spread(world: World, template: Template) -> list[DistributionTarget]:
    """On its way to eight hosts, two at a time, of which two are done; the source holds it without a copy."""
    phases = ["installed"] * 2 + ["copying"] * 2 + ["waiting"] * 4
    done = {"installed": GIB, "copying": GIB // 2, "waiting": 0}
    rate = {"copying": 64 * MIB}
    return [
        world.target(
            template,
            world.provider(f"host-{number}"),
            phase,
            bytes_done=done[phase],
            rate=rate.get(phase, 0),
        )
        for number, phase in enumerate(phases)
    ]


def line(template: Template) -> looks.Line:
    return pages.loaded(Template.objects.filter(pk=template.pk))[0].distribution.line


def test_what_was_distributed_stays_in_the_total(
    template: Template, spread: list[DistributionTarget]
) -> None:
    assert line(template).percent == 100 * 3 / 8
    now = {"installed_version": template.current_version, "verified_at": timezone.now(), "claim": None}
    DistributionTarget.objects.filter(pk=spread[2].pk).update(phase="installed", bytes_done=GIB, **now)
    assert line(template).percent == 100 * 3.5 / 8


def test_a_distribution_begins_at_nothing_although_its_source_holds_it(
    world: World, template: Template
) -> None:
    world.target(template, world.provider("host"), "copying", bytes_done=0)
    assert line(template).percent == -1
    template.targets.filter(phase="copying").update(bytes_done=GIB // 4)
    assert line(template).percent == 25


def test_a_provider_that_is_added_is_measured_by_itself(world: World, template: Template) -> None:
    world.target(template, world.provider("held"), bytes_done=GIB)
    world.target(template, world.provider("new"), "copying", intent="adding", bytes_done=GIB // 4)
    assert line(template).percent == 25


def test_the_time_left_is_that_of_all_who_wait_for_their_turn_too(
    template: Template, spread: list[DistributionTarget]
) -> None:
    assert "128 MiB/s · 40 s left" in line(template).detail


def test_a_host_that_is_away_and_waits_adds_no_time(
    world: World, template: Template, spread: list[DistributionTarget]
) -> None:
    world.target(template, world.silent("gone"), "waiting")
    assert "40 s left" in line(template).detail


def test_no_distribution_ends_before_its_slowest_copy(
    template: Template, spread: list[DistributionTarget]
) -> None:
    DistributionTarget.objects.filter(pk=spread[2].pk).update(rate=MIB)
    assert "8 min 32 s left" in line(template).detail


def test_no_time_is_promised_in_the_first_seconds(
    template: Template, spread: list[DistributionTarget]
) -> None:
    template.targets.update(started_at=timezone.now())
    assert "left" not in line(template).detail


@pytest.mark.parametrize("phase", ["checking", "copying", "verifying", "publishing", "removing"])
def test_work_says_how_long_it_runs(world: World, template: Template, viewer: Client, phase: str) -> None:
    began = timezone.now() - timedelta(minutes=7)
    target = world.target(template, world.provider("host"), phase, started_at=began)
    DistributionTarget.objects.filter(pk=target.pk).update(changed_at=began + timedelta(seconds=151))
    assert "2 min 31 s elapsed" in viewer.get(f"/templates/{template.pk}/").content.decode()


@pytest.mark.parametrize("phase", ["waiting", "failed", "installed"])
def test_nothing_that_rests_says_that_it_runs(world: World, template: Template, phase: str) -> None:
    target = world.target(template, world.provider("host"), phase, started_at=timezone.now())
    assert "elapsed" not in looks.progress(target).detail


@pytest.mark.parametrize(("done", "said"), [(GIB, "99 %"), (GIB - 1, "99 %"), (GIB * 629 // 1000, "62 %")])
def test_a_share_is_rounded_down(
    world: World, template: Template, viewer: Client, done: int, said: str
) -> None:
    world.target(template, world.provider("host"), "publishing", bytes_done=done)
    page = viewer.get(f"/templates/{template.pk}/").content.decode()
    assert set(re.findall(r"\d+ %", page)) == {said}


@pytest.fixture
def unmade(world: World) -> Template:
    """Its source VM could not be read; two hosts wait for the first version."""
    source = world.provider("source")
    error = {
        "error_code": "NO_SPACE",
        "error_text": "source is too full.",
        "error_action": "Free some space.",
    }
    template = Template.objects.create(name="win11", source_provider=source, phase="create_failed", **error)
    for name in ("source", "host"):
        provider = source if name == "source" else world.provider(name)
        world.target(template, provider, "waiting", bytes_total=0)
    return template


def test_a_creation_that_failed_leaves_nothing_that_seems_to_be_distributed(
    unmade: Template, viewer: Client
) -> None:
    assert (line(unmade).look.word, line(unmade).percent) == ("Failed to distribute", None)
    assert line(unmade).detail == "0 of 2, 2 failed"
    page = viewer.get(f"/templates/{unmade.pk}/").content.decode()
    assert page.count("source is too full. Free some space.") >= 3  # of the whole, and of each host
    assert "Distributing" not in page
    assert "Retry all failed" not in page
    assert "win11" not in viewer.get("/templates/?distribution=Distributing").content.decode()
    answer = template_status(unmade)
    assert answer["distribution"] == "Failed to distribute"
    assert {each["progress"] for each in answer["targets"]} == {"Failed to distribute"}


def test_what_waits_for_a_template_that_was_not_made_is_no_task(
    world: World, unmade: Template, viewer: Client
) -> None:
    assert activity.tasks() == []
    unmade.advance("creating")
    assert len(activity.tasks()) == 3


def test_the_targets_are_read_again_when_a_creation_failed(unmade: Template, viewer: Client) -> None:
    def signed() -> str:
        parts = pages.frame(f"template:{unmade.pk}", set()).parts
        sign = re.search(rf'id="sign-targets-{unmade.pk}"[^>]*data-sign="[^"]+"', parts)
        assert sign
        return sign.group(0).rpartition("data-sign")[2]

    before = signed()
    assert before in viewer.get(f"/templates/{unmade.pk}/").content.decode()
    assert before in viewer.get(f"/templates/{unmade.pk}/distribution/").content.decode()
    unmade.advance("creating")
    assert signed() != before
