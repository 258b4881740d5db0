"""Lanes that join a run which is under way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from templates_app.transfer.events import Event, Failed, Phase, Published
from templates_app.transfer.job import Command, Job, Join, LaneJob, Stop

from .drive import SMALL, Outcome, drive, make_job
from .memoryhost import Place, Trouble, World
from .scenes import check_lane, places, release, seal, source_with, whole


def joining(
    job: Job, world: World, when: Callable[[Event], bool], lane: LaneJob, **how: Any
) -> tuple[Outcome, list[Event]]:
    """Run ``job``; the first event for which ``when`` holds brings ``lane`` along."""
    heard: list[Event] = []
    joined: list[LaneJob] = []

    def act(event: Event) -> list[Command]:
        heard.append(event)
        if joined or not when(event):
            return []
        joined.append(lane)
        return [Join(lane)]

    return drive(job, world, act=act, **how), heard


def test_a_host_that_joins_shares_what_is_still_to_be_read(tmp_path: Path) -> None:
    made = whole(30)
    sealed = seal(tmp_path, made)
    source, hosts = source_with(made), {"t0": Place(delay=0.01), "t1": Place(delay=0.01)}
    job = make_job(tmp_path, list(hosts), ["disk0"], sealed=sealed)
    alone = replace(job, lanes=job.lanes[:1])
    patient = replace(SMALL, laggard_seconds=60, patience_seconds=0)
    world = World(source=source, **hosts)
    outcome, _ = joining(alone, world, lambda event: isinstance(event, Phase), job.lanes[1], tuning=patient)
    assert {outcome.code(lane) for lane in hosts} == {"published"}
    for lane, place in hosts.items():
        check_lane(outcome, lane, place, tmp_path, [made])
    assert len(made.content) <= source.read < 2 * len(made.content)


def test_a_host_that_failed_may_join_again_and_goes_on_from_what_is_there(tmp_path: Path) -> None:
    made = whole(30)
    sealed = seal(tmp_path, made)
    hosts = {"t0": Place(troubles=[Trouble("write", 12, "error")]), "t1": Place(delay=0.03)}
    job = make_job(tmp_path, list(hosts), ["disk0"], sealed=sealed)
    _, heard = joining(
        job, World(source=source_with(made), **hosts), lambda event: isinstance(event, Failed), job.lanes[0]
    )
    ends = [event for event in heard if isinstance(event, Failed | Published) and event.lane == "t0"]
    assert [type(end) for end in ends] == [Failed, Published]
    assert list(hosts["t0"].published.values()) == [made.content]
    assert hosts["t0"].calls["write"] < 2 * 30


def test_a_host_that_hangs_is_not_taken_along_again(tmp_path: Path) -> None:
    made = whole(30)
    hosts = {"t0": Place(troubles=[Trouble("write", 2, "hang")]), "t1": Place(delay=0.03)}
    job = make_job(tmp_path, list(hosts), ["disk0"], sealed=seal(tmp_path, made), stall_seconds=0.3)
    try:
        _, heard = joining(
            job,
            World(source=source_with(made), **hosts),
            lambda event: isinstance(event, Failed),
            job.lanes[0],
        )
    finally:
        release(*hosts.values())
    ends = [event for event in heard if isinstance(event, Failed) and event.lane == "t0"]
    assert [end.code for end in ends] == ["STALLED", "STALLED"]
    assert hosts["t0"].calls["connect"] == 1


def test_a_host_that_comes_too_late_is_told_to_come_again(tmp_path: Path) -> None:
    hosts = places(2)
    job = make_job(tmp_path, list(hosts), ["disk0"], sealed=seal(tmp_path, whole(4)))
    alone = replace(job, lanes=job.lanes[:1])

    told: list[Event] = []

    def act(event: Event) -> list[Command]:
        told.extend([event] if isinstance(event, Phase) else [])
        return [Stop(), Join(job.lanes[1])] if told == [event] else []

    outcome = drive(alone, World(source=source_with(whole(4)), **hosts), act=act, publish=False)
    end = outcome.of("t1")
    assert isinstance(end, Failed)
    assert (end.code, end.kept) == ("STOPPED", True)
