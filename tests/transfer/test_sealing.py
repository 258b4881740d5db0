"""A host that seals its own disk: it copies that by itself and is not sent a byte."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from templates_app.transfer.events import Sealed
from templates_app.transfer.job import Base, Job

from .drive import BLOCK, LEAF, SMALL, Outcome, drive, make_job
from .memoryhost import Disk, Place, Trouble, World
from .scenes import (
    bounded,
    check_lane,
    disks,
    large,
    new_folder,
    published,
    release,
    seal,
    troubles_of_copies,
    whole,
    why,
)


def sealing(folder: Path, made: Disk, place: Place, *more: str, stall_seconds: float = 5.0) -> Job:
    place.disks["disk0"] = made
    bases = {"source": Base("disk0")}
    return make_job(folder, ["source", *more], ["disk0"], bases=bases, stall_seconds=stall_seconds)


def sealed_by(outcome: Outcome) -> Sealed:
    assert outcome.sealed
    return outcome.sealed


@bounded
@given(made=disks(), troubles=troubles_of_copies, more=st.booleans())
def test_with_any_troubles_a_sealing_on_the_spot_is_right_or_fails(
    tmp_path_factory: pytest.TempPathFactory, made: Disk, troubles: list[Trouble], more: bool
) -> None:
    # What a host reads wrong without a word, when it is read for the first time, nobody can know.
    troubles = [it for it in troubles if (it.call, it.kind) not in {("readback", "rot"), ("read", "rot")}]
    with new_folder(tmp_path_factory) as name:
        place = Place(troubles=troubles)
        hosts = {"t1": Place()} if more else {}
        hangs = any(trouble.kind == "hang" for trouble in troubles)
        job = sealing(Path(name), made, place, *hosts, stall_seconds=0.2 if hangs else 5)
        try:
            outcome = drive(job, World(source=place, **hosts))
        finally:
            release(place, *hosts.values())
        check_lane(outcome, "source", place, Path(name), [made])
        for lane, host in hosts.items():
            check_lane(outcome, lane, host, Path(name), [made])


def test_a_host_seals_its_own_disk_without_a_byte_sent_and_it_is_read_once(tmp_path: Path) -> None:
    made, place = large(), Place()
    job = sealing(tmp_path, made, place)
    outcome = drive(job, World(source=place), tuning=replace(SMALL, samples=3))
    end = published(outcome, "source")
    check_lane(outcome, "source", place, tmp_path, [made])
    assert (end.based, end.sent, place.written) == (True, 0, 0)
    assert place.read == 3 * LEAF  # the source itself: samples alone
    assert sealed_by(outcome).disks[0].digest == seal(tmp_path / "other", made).disks[0].digest


def test_a_host_that_can_not_copy_is_sent_its_own_disk(tmp_path: Path) -> None:
    made, place = whole(3), Place(troubles=[Trouble("copy", 1, "unable")])
    outcome = drive(sealing(tmp_path, made, place), World(source=place))
    end = published(outcome, "source")
    assert (end.based, end.sent, why(outcome)) == (False, 3 * BLOCK, ["UNABLE"])
    check_lane(outcome, "source", place, tmp_path, [made])


def test_a_disk_that_changes_while_its_host_copies_it_is_not_sealed(tmp_path: Path) -> None:
    made, place = whole(3), Place(troubles=[Trouble("copy-step", 2, "touch")])
    outcome = drive(sealing(tmp_path, made, place), World(source=place))
    assert (outcome.code("source"), outcome.sealed) == ("SOURCE_CHANGED", None)


def test_a_sealing_that_was_killed_while_the_host_copied_begins_again(tmp_path: Path) -> None:
    made, place = whole(6), Place(troubles=[Trouble("copy-step", 3, "hang")])
    job = sealing(tmp_path, made, place, stall_seconds=0.1)
    assert drive(job, World(source=place)).code("source") == "STALLED"
    release(place)
    place.troubles.clear()
    outcome = drive(sealing(tmp_path, made, place), World(source=place))
    assert published(outcome, "source").based
    check_lane(outcome, "source", place, tmp_path, [made])
