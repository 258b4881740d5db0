"""A damaged image is the beginning of its own replacement: only what is wrong is sent, whatever goes wrong."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from templates_app.transfer.job import Base

from .drive import BLOCK, LEAF, drive, make_job
from .memoryhost import Disk, Place, Trouble, World, disk_of
from .scenes import bounded, disks, new_folder, places, seal, source_with, troubles_of_copies
from .test_delta import Edit, Story, edited, edits, published, why


def damaged(base: Base) -> Base:
    return Base(base.ref, base.manifest, proven=False)


def wrong_bytes(wanted: bytes, found: bytes) -> int:
    """Bytes in leaves of data that differ."""
    starts = range(0, len(wanted), LEAF)
    leaves = [(wanted[start : start + LEAF], found[start : start + LEAF]) for start in starts]
    return sum(len(leaf) for leaf, other in leaves if leaf != other and any(leaf))


@bounded
@given(wanted=disks(), damage=edits, troubles=st.lists(troubles_of_copies, min_size=1, max_size=2))
def test_with_any_troubles_a_repair_gives_the_right_bytes_or_fails(
    tmp_path_factory: pytest.TempPathFactory, wanted: Disk, damage: list[Edit], troubles: list[list[Trouble]]
) -> None:
    with new_folder(tmp_path_factory) as name:
        found = edited(wanted, damage)
        story = Story(Path(name), found, wanted, **places(len(troubles), troubles))
        hangs = any(trouble.kind == "hang" for many in troubles for trouble in many)
        outcome = story.run(damaged(story.base()), stall_seconds=0.2 if hangs else 5)
        for lane, place in story.hosts.items():
            story.check(outcome, lane)
            if not place.troubles and not hangs:
                assert published(outcome, lane).sent == wrong_bytes(wanted.content, found.content)


@bounded
@given(wanted=disks(), damage=edits, troubles=troubles_of_copies, seed=st.integers(0, 1000))
def test_a_second_run_goes_on_from_whatever_a_crash_left_of_a_repair(
    tmp_path_factory: pytest.TempPathFactory,
    wanted: Disk,
    damage: list[Edit],
    troubles: list[Trouble],
    seed: int,
) -> None:
    chance = random.Random(seed)
    with new_folder(tmp_path_factory) as name:
        story = Story(Path(name), edited(wanted, damage), wanted, t0=Place(troubles=troubles))
        if story.run(damaged(story.base()), stall_seconds=0.2).code("t0") != "published":
            story.host.troubles.clear()
            story.host.published.clear()
            for staged in story.host.staged.values():
                staged.crash(chance)
            outcome = story.run(damaged(story.base()))
            assert outcome.code("t0") == "published"
            story.check(outcome)


@bounded
@given(
    made=st.lists(disks(), min_size=1, max_size=3),
    there=st.lists(st.sampled_from(["right", "wrong", "absent"]), min_size=3, max_size=3),
    damage=edits,
)
def test_what_is_there_is_used_disk_by_disk_or_left_alone(
    tmp_path_factory: pytest.TempPathFactory, made: list[Disk], there: list[str], damage: list[Edit]
) -> None:
    with new_folder(tmp_path_factory) as name:
        sealed, host = seal(Path(name), *made), Place()
        job = make_job(Path(name), ["t0"], [f"disk{at}" for at in range(len(made))], sealed=sealed)
        found = [
            edited(disk, damage if kind == "wrong" else []) for disk, kind in zip(made, there, strict=False)
        ]
        host.disks = {f"have{at}": disk for at, disk in enumerate(found)}
        have = [None if kind == "absent" else f"have{at}" for at, kind in enumerate(there[: len(made)])]
        pairs = zip(job.lanes[0].disks, have, strict=True)
        lane = replace(job.lanes[0], disks=[replace(disk, have=ref) for disk, ref in pairs])
        outcome = drive(replace(job, lanes=[lane]), World(source=source_with(*made), t0=host))
        spoilt = any(ref and found[at].content != made[at].content for at, ref in enumerate(have))
        assert outcome.code("t0") == ("CONTENT_CHANGED" if spoilt else "published")
        assert host.staged == {}
        absent = [disk.content for disk, ref in zip(made, have, strict=True) if ref is None]
        assert sorted(host.published.values()) == ([] if spoilt else sorted(absent))
        assert [host.disks[f"have{at}"] for at in range(len(made))] == found


def test_only_what_is_wrong_is_sent_and_read_from_the_source(tmp_path: Path) -> None:
    wanted = disk_of(random.Random(1).randbytes(20 * BLOCK), [10, 14, 70], LEAF)
    content = bytearray(wanted.content)
    for leaf in (3, 12, 40):  # 12 lies in a hole
        content[leaf * LEAF + 9] ^= 1
    story = Story(tmp_path, Disk(bytes(content), wanted.extents), wanted)
    outcome = story.run(damaged(story.base()))
    story.check(outcome)
    end = published(outcome)
    assert (end.based, end.sent, story.source.read) == (True, 2 * LEAF, 2 * LEAF)


def test_what_has_another_size_or_is_gone_is_sent_whole(tmp_path: Path) -> None:
    wanted = disk_of(random.Random(1).randbytes(9 * BLOCK), [], LEAF)
    story = Story(tmp_path, Disk(wanted.content[:-5], wanted.extents), wanted, t0=Place(), t1=Place())
    story.hosts["t1"].disks.clear()
    outcome = story.run(damaged(story.base()))
    assert sorted(why(outcome)) == ["CONTENT_CHANGED", "MISSING"]
    for lane in story.hosts:
        story.check(outcome, lane)
        assert published(outcome, lane).sent == len(wanted.content)
