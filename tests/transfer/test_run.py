"""Whole runs between hosts in memory: whatever goes wrong, a published image is right and every run ends."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from templates_app.transfer.events import Event
from templates_app.transfer.job import Cancel, Command, Stop

from .drive import SMALL, drive, make_job
from .memoryhost import Disk, Place, Trouble, World
from .scenes import (
    bounded,
    check_lane,
    disks,
    new_folder,
    places,
    release,
    seal,
    source_with,
    troubles_of_sinks,
    troubles_of_sources,
    whole,
)


@bounded
@given(made=st.lists(disks(), min_size=1, max_size=2), lanes=st.integers(1, 3), first=st.booleans())
def test_every_host_gets_exactly_the_source(
    tmp_path_factory: pytest.TempPathFactory, made: list[Disk], lanes: int, first: bool
) -> None:
    with new_folder(tmp_path_factory) as name:
        folder = Path(name)
        hosts = places(lanes)
        sealed = None if first else seal(folder, *made)
        source = source_with(*made)
        job = make_job(folder, list(hosts), list(source.disks), sealed=sealed)
        outcome = drive(job, World(source=source, **hosts))
        for lane, place in hosts.items():
            assert outcome.code(lane) == "published"
            check_lane(outcome, lane, place, folder, made)


@bounded
@given(
    made=st.lists(disks(), min_size=1, max_size=2),
    sinks=st.lists(troubles_of_sinks, min_size=1, max_size=3),
    source=st.one_of(st.just([]), troubles_of_sources),
    first=st.booleans(),
)
def test_with_any_troubles_a_published_image_is_right_and_all_ends(
    tmp_path_factory: pytest.TempPathFactory,
    made: list[Disk],
    sinks: list[list[Trouble]],
    source: list[Trouble],
    first: bool,
) -> None:
    if first:  # what a host reads wrong the first time, and says nothing, nobody can know
        source = [trouble for trouble in source if trouble.kind != "rot"]
    with new_folder(tmp_path_factory) as name:
        folder = Path(name)
        sealed = None if first else seal(folder, *made)
        contents = [Disk(disk.content, disk.extents) for disk in made]
        hosts = places(len(sinks), sinks)
        origin = source_with(*made, troubles=source)
        hangs = any(trouble.kind == "hang" for trouble in [*source, *(one for many in sinks for one in many)])
        stall = 0.2 if hangs else 5
        job = make_job(folder, list(hosts), list(origin.disks), sealed=sealed, stall_seconds=stall)
        try:
            outcome = drive(job, World(source=origin, **hosts))
        finally:
            release(origin, *hosts.values())
        for lane, place in hosts.items():
            check_lane(outcome, lane, place, folder, contents)
            if not source and not place.troubles:
                assert outcome.code(lane) in ("published", "STALLED" if hangs else "")


@bounded
@given(
    blocks=st.integers(8, 30),
    delays=st.lists(st.sampled_from([0, 0.0005, 0.002, 0.005]), min_size=3, max_size=5),
    first=st.booleans(),
)
def test_hosts_of_any_speed_get_the_right_bytes(
    tmp_path_factory: pytest.TempPathFactory, blocks: int, delays: list[float], first: bool
) -> None:
    with new_folder(tmp_path_factory) as name:
        folder = Path(name)
        made = whole(blocks)
        sealed = None if first else seal(folder, made)
        hosts = {f"t{number}": Place(delay=delay) for number, delay in enumerate(delays)}
        job = make_job(folder, list(hosts), ["disk0"], sealed=sealed)
        outcome = drive(job, World(source=source_with(made), **hosts))
        for lane, place in hosts.items():
            assert outcome.code(lane) == "published"
            check_lane(outcome, lane, place, folder, [made])


@bounded
@given(
    made=disks(),
    sinks=st.lists(troubles_of_sinks, min_size=2, max_size=2),
    scribbles=st.integers(0, 3),
    seed=st.integers(0, 1000),
    first=st.booleans(),
)
def test_a_second_run_goes_on_from_whatever_a_crash_left(
    tmp_path_factory: pytest.TempPathFactory,
    made: Disk,
    sinks: list[list[Trouble]],
    scribbles: int,
    seed: int,
    first: bool,
) -> None:
    chance = random.Random(seed)
    with new_folder(tmp_path_factory) as name:
        folder = Path(name)
        sealed = None if first else seal(folder, made)
        hosts = places(len(sinks), sinks)
        job = make_job(folder, list(hosts), ["disk0"], sealed=sealed, stall_seconds=0.2)
        outcome = drive(job, World(source=source_with(made), **hosts))
        release(*hosts.values())
        left = {lane: place for lane, place in hosts.items() if outcome.code(lane) != "published"}
        for place in left.values():
            place.troubles.clear()
            for staged in place.staged.values():
                staged.crash(chance)
                for _ in range(scribbles if made.content else 0):
                    staged.put(chance.randrange(len(made.content)), b"!")
            place.published.clear()
        job = make_job(folder, list(left), ["disk0"], sealed=sealed)
        outcome = drive(job, World(source=source_with(made), **left))
        for lane, place in left.items():
            assert outcome.code(lane) == "published"
            check_lane(outcome, lane, place, folder, [made])


@bounded
@given(
    made=disks(),
    when=st.integers(0, 8),
    order=st.sampled_from([Cancel("t0"), Stop("t0"), Stop()]),
    first=st.booleans(),
    slow=st.booleans(),
)
def test_cancel_and_stop_work_at_any_time(
    tmp_path_factory: pytest.TempPathFactory, made: Disk, when: int, order: Command, first: bool, slow: bool
) -> None:
    with new_folder(tmp_path_factory) as name:
        folder = Path(name)
        sealed = None if first else seal(folder, made)
        hosts = {"t0": Place(delay=0.002 if slow else 0), "t1": Place()}
        job = make_job(folder, list(hosts), ["disk0"], sealed=sealed)
        heard: list[Event] = []
        patient = replace(SMALL, grace_seconds=10)

        def act(event: Event) -> list[Command]:
            heard.append(event)
            return [order] if len(heard) == when + 1 else []

        outcome = drive(job, World(source=source_with(made), **hosts), act=act, tuning=patient)
        for lane, place in hosts.items():
            check_lane(outcome, lane, place, folder, [made])
        assert outcome.code("t0") in {"published", "CANCELLED" if order == Cancel("t0") else "STOPPED"}
        assert order == Stop() or outcome.code("t1") == "published"
        if outcome.code("t0") == "CANCELLED":
            assert hosts["t0"].staged == hosts["t0"].published == {}
