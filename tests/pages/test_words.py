"""What stands beside the words: how much is done, how long it takes, since when, and why not."""

from __future__ import annotations

import re
from datetime import timedelta

import pytest
from django.test import Client
from django.utils import timezone

from templates_app import looks, pages
from templates_app.models import DistributionTarget, Template
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
