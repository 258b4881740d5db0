"""Images that hosts have already: compared, and adopted or left alone."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest

from templates_app.transfer.events import Differs, Published

from .drive import BLOCK, LEAF, drive, make_job
from .memoryhost import Disk, Extent, Place, Trouble, World, disk_of
from .scenes import places, release, seal, source_with, whole


@pytest.mark.parametrize(("stamp", "blocks"), [("1", 2), ("0", 9)])
def test_what_was_compared_before_is_read_again_only_if_it_was_touched(
    tmp_path: Path, stamp: str, blocks: int
) -> None:
    made = whole(9)
    host = Place()
    host.disks["have0"] = Disk(made.content, made.extents, generation=1)
    job = make_job(tmp_path, ["t0"], ["disk0"], sealed=seal(tmp_path, made), have=["t0"])
    disk = replace(job.lanes[0].disks[0], compared=7 * BLOCK + 1, stamp=stamp)
    job = replace(job, lanes=[replace(job.lanes[0], disks=[disk])])
    outcome = drive(job, World(source=source_with(made), t0=host))
    assert outcome.code("t0") == "published"
    assert host.read == blocks * BLOCK
    assert list(host.confirmed.values()) == ([] if stamp == "1" else ["1"])


def test_an_image_that_is_there_already_is_adopted_without_sending(tmp_path: Path) -> None:
    made = disk_of(random.Random(3).randbytes(9 * BLOCK + 77), [4, 9, 20], LEAF)
    hosts = places(1)
    hosts["t0"].disks["have0"] = Disk(made.content, made.extents)
    job = make_job(tmp_path, ["t0"], ["disk0"], sealed=seal(tmp_path, made), have=["t0"])
    outcome = drive(job, World(source=source_with(made), **hosts))
    end = outcome.of("t0")
    assert isinstance(end, Published)
    assert (end.adopted, end.sent, hosts["t0"].calls["stage"]) == (True, 0, 0)


@pytest.mark.parametrize("call", ["open", "extents", "stamp", "read", "close", "confirm"])
def test_a_host_that_hangs_over_an_image_that_is_there_stalls(tmp_path: Path, call: str) -> None:
    made = disk_of(random.Random(3).randbytes(9 * BLOCK), [4, 9, 20], LEAF)
    host = Place(troubles=[Trouble(call, 1, "hang")])
    host.disks["have0"] = made
    job = make_job(tmp_path, ["t0"], ["disk0"], sealed=seal(tmp_path, made), have=["t0"], stall_seconds=0.1)
    try:
        assert drive(job, World(source=source_with(made), t0=host)).code("t0") == "STALLED"
    finally:
        release(host)


def test_a_map_that_comes_slowly_is_no_call_that_hangs(tmp_path: Path) -> None:
    made = disk_of(random.Random(3).randbytes(40 * LEAF), range(0, 40, 2), LEAF)
    source = source_with(made)
    source.troubles = [Trouble("extent", at, "slow") for at in range(1, 21)]
    outcome = drive(make_job(tmp_path, [], ["disk0"], stall_seconds=0.4), World(source=source))
    assert outcome.sealed is not None


def test_an_image_that_was_changed_by_hand_is_left_alone(tmp_path: Path) -> None:
    made = disk_of(random.Random(3).randbytes(9 * BLOCK), [4, 9, 20], LEAF)
    hosts = places(1)
    there = bytearray(made.content)
    there[5 * LEAF] ^= 1
    hosts["t0"].disks["have0"] = disk_of(bytes(there), [], LEAF)
    job = make_job(tmp_path, ["t0"], ["disk0"], sealed=seal(tmp_path, made), have=["t0"])
    outcome = drive(job, World(source=source_with(made), **hosts))
    assert outcome.code("t0") == "CONTENT_CHANGED"
    assert hosts["t0"].calls["write"] == hosts["t0"].calls["abort"] == 0


def test_images_are_compared_without_any_source(tmp_path: Path) -> None:
    made = disk_of(random.Random(3).randbytes(9 * BLOCK + 77), [4, 9, 20], LEAF)
    wrong = bytearray(made.content)
    for offset in (5 * LEAF, 30 * LEAF + 1, 30 * LEAF + 2):  # the first lies in a hole
        wrong[offset] ^= 1
    there = {
        "right": made.content,
        "wrong": bytes(wrong),
        "short": made.content[: 20 * LEAF],
        "long": made.content + bytes(LEAF),
    }
    hosts = {name: source_with() for name in there}
    for name, content in there.items():
        hosts[name].disks["have0"] = Disk(content, [Extent(0, len(content))])
    job = make_job(tmp_path, list(hosts), ["disk0"], sealed=seal(tmp_path, made), have=list(hosts))
    job = replace(job, source=replace(job.source, host=None))
    outcome = drive(job, World(**hosts))
    found = {
        event.lane: (event.leaves, event.offset) for event in outcome.events if isinstance(event, Differs)
    }
    assert found == {"wrong": (2, 5 * LEAF), "short": (17, 20 * LEAF), "long": (0, len(made.content))}
    assert {name: outcome.code(name) for name in hosts} == {
        "right": "published",
        **dict.fromkeys(["wrong", "short", "long"], "CONTENT_CHANGED"),
    }
    assert all(host.calls["write"] == 0 for host in hosts.values())
