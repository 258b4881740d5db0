"""A host that holds a version already: it copies that by itself and is sent what differs, whatever goes wrong."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from templates_app.transfer.events import Event, Progress
from templates_app.transfer.job import Base, Cancel, Command, Job, Stop

from .drive import LEAF, SMALL, Outcome, drive, make_job
from .memoryhost import Disk, Place, Trouble, World
from .scenes import (
    Edit,
    bounded,
    check_lane,
    disks,
    edited,
    large,
    new_folder,
    places,
    published,
    release,
    seal,
    source_with,
    troubles_of_copies,
    why,
)

edits = st.lists(st.tuples(st.integers(0, 100), st.sampled_from(["data", "zeros", "page"])), max_size=8)


class Story:
    """A version on the source host, and a host that holds an older one as ``base``."""

    def __init__(self, folder: Path, old: Disk, new: Disk, **hosts: Place) -> None:
        self.folder, self.new = folder, new
        self.old_sealed, self.sealed = seal(folder, old), seal(folder, new)
        self.hosts = hosts or {"t0": Place()}
        for place in self.hosts.values():
            place.disks["base"] = Disk(old.content, old.extents, place.disks.get("base", old).generation)
        self.source = source_with(new)

    @property
    def host(self) -> Place:
        return self.hosts["t0"]

    def base(self, **fields: Any) -> Base:
        return replace(Base("base", self.old_sealed.disks[0].manifest), **fields)

    def job(self, base: Base | None = None, stall_seconds: float = 5.0) -> Job:
        bases = dict.fromkeys(self.hosts, base or self.base())
        return make_job(
            self.folder,
            list(self.hosts),
            ["disk0"],
            sealed=self.sealed,
            bases=bases,
            stall_seconds=stall_seconds,
        )

    def run(self, base: Base | None = None, stall_seconds: float = 5.0, **options: object) -> Outcome:
        try:
            world = World(source=self.source, **self.hosts)
            return drive(self.job(base, stall_seconds), world, **options)  # type: ignore[arg-type] # passed on as they are
        finally:
            release(*self.hosts.values())

    def check(self, outcome: Outcome, lane: str = "t0") -> None:
        check_lane(outcome, lane, self.hosts[lane], self.folder, [self.new])


@bounded
@given(
    old=disks(),
    changes=edits,
    troubles=st.lists(troubles_of_copies, min_size=1, max_size=2),
    damage=st.none() | st.integers(0, 1 << 20),
)
def test_with_any_troubles_a_delta_gives_the_right_bytes_or_fails(
    tmp_path_factory: pytest.TempPathFactory,
    old: Disk,
    changes: list[Edit],
    troubles: list[list[Trouble]],
    damage: int | None,
) -> None:
    with new_folder(tmp_path_factory) as name:
        story = Story(Path(name), old, edited(old, changes), **places(len(troubles), troubles))
        if damage is not None and any(old.content):
            spoil(story.host, damage)
        hangs = any(trouble.kind == "hang" for many in troubles for trouble in many)
        outcome = story.run(stall_seconds=0.2 if hangs else 5)
        for lane, place in story.hosts.items():
            story.check(outcome, lane)
            if not place.troubles:
                assert outcome.code(lane) in ("published", "STALLED" if hangs else "")


def spoil(place: Place, seed: int) -> None:
    """Change a byte of data of the base, as nobody should."""
    content = bytearray(place.disks["base"].content)
    at = random.Random(seed).choice([at for at, byte in enumerate(content) if byte])
    content[at] ^= 0xFF
    place.disks["base"].content = bytes(content)


@bounded
@given(
    old=disks(),
    changes=edits,
    troubles=troubles_of_copies,
    scribbles=st.integers(0, 3),
    seed=st.integers(0, 1000),
)
def test_a_second_run_goes_on_from_whatever_a_crash_left_of_a_delta(
    tmp_path_factory: pytest.TempPathFactory,
    old: Disk,
    changes: list[Edit],
    troubles: list[Trouble],
    scribbles: int,
    seed: int,
) -> None:
    chance = random.Random(seed)
    with new_folder(tmp_path_factory) as name:
        story = Story(Path(name), old, edited(old, changes), t0=Place(troubles=troubles))
        outcome = story.run(stall_seconds=0.2)
        if outcome.code("t0") != "published":
            story.host.troubles.clear()
            story.host.published.clear()
            for staged in story.host.staged.values():
                staged.crash(chance)
                for _ in range(scribbles if old.content else 0):
                    staged.put(chance.randrange(len(old.content)), b"!")
            outcome = story.run()
        assert outcome.code("t0") == "published"
        story.check(outcome)


@bounded
@given(old=disks(), changes=edits, when=st.integers(0, 4), stop=st.booleans(), slow=st.booleans())
def test_a_delta_can_be_cancelled_and_stopped_at_any_time(
    tmp_path_factory: pytest.TempPathFactory,
    old: Disk,
    changes: list[Edit],
    when: int,
    stop: bool,
    slow: bool,
) -> None:
    with new_folder(tmp_path_factory) as name:
        troubles = [Trouble("copy-step", 2, "slow")] if slow else []
        story = Story(Path(name), old, edited(old, changes), t0=Place(troubles=troubles))
        heard: list[Event] = []

        def act(event: Event) -> list[Command]:
            heard.append(event)
            return [Stop() if stop else Cancel("t0")] if len(heard) == when + 1 else []

        outcome = story.run(act=act, tuning=replace(SMALL, grace_seconds=10))
        story.check(outcome)
        if outcome.code("t0") == "CANCELLED":
            assert story.host.staged == story.host.published == {}
        elif outcome.code("t0") == "STOPPED":
            story.check(story.run())


def test_two_percent_that_changed_is_all_that_is_sent_and_read(tmp_path: Path) -> None:
    story = Story(tmp_path, large(), large([(leaf, "page") for leaf in range(0, 396, 66)]))
    end = published(outcome := story.run())
    story.check(outcome)
    assert (end.based, end.sent) == (True, 6 * LEAF)
    assert story.source.read == 6 * LEAF
    assert story.host.written == 6 * LEAF
    assert story.host.copied == len(story.new.content)


def test_a_host_two_versions_behind_gets_the_difference_in_one_step(tmp_path: Path) -> None:
    first, second = [(8, "data"), (80, "data")], [(80, "page"), (160, "data"), (8, "page")]
    story = Story(tmp_path, large(), large([*first, *second]))
    end = published(outcome := story.run())
    story.check(outcome)
    assert end.sent == 3 * LEAF


def test_hosts_with_different_versions_travel_together(tmp_path: Path) -> None:
    story = Story(tmp_path, large(), large([(8, "data")]), t0=Place(), t1=Place(), t2=Place())
    job = story.job()
    lanes = [
        job.lanes[0],
        job.lanes[1],
        replace(job.lanes[2], disks=[replace(job.lanes[2].disks[0], base=None)]),
    ]
    patient = replace(SMALL, laggard_seconds=60)
    outcome = drive(replace(job, lanes=lanes), World(source=story.source, **story.hosts), tuning=patient)
    for lane in story.hosts:
        story.check(outcome, lane)
    assert [published(outcome, lane).based for lane in story.hosts] == [True, True, False]
    assert [published(outcome, lane).sent for lane in ("t0", "t1")] == [LEAF, LEAF]
    assert story.source.read == sum(disk.allocated for disk in story.sealed.disks)


@pytest.mark.parametrize("kind", ["zeros", "data"])
def test_data_that_became_zeros_and_zeros_that_became_data(tmp_path: Path, kind: str) -> None:
    with_it, without = large([(9, "data"), (398, "data")]), large([(9, "zeros"), (398, "zeros")])
    old, new = (with_it, without) if kind == "zeros" else (without, with_it)
    story = Story(tmp_path, old, new)
    end = published(outcome := story.run())
    story.check(outcome)
    assert end.sent == (0 if kind == "zeros" else 2 * LEAF - 100)


@pytest.mark.parametrize("size", [300 * LEAF + 7, 450 * LEAF + 7])
def test_a_disk_that_grew_or_shrank_is_sent_whole(tmp_path: Path, size: int) -> None:
    story = Story(tmp_path, large(), edited(large(), [], size))
    end = published(outcome := story.run())
    story.check(outcome)
    assert (end.based, why(outcome), story.host.calls["copy"]) == (False, ["UNFIT"], 0)


def test_a_base_that_was_changed_by_hand_is_not_used(tmp_path: Path) -> None:
    story = Story(tmp_path, large(), large([(8, "data")]))
    spoil(story.host, 1)
    end = published(outcome := story.run())
    story.check(outcome)
    assert (end.based, why(outcome), story.host.calls["copy"]) == (False, ["CONTENT_CHANGED"], 0)


def test_a_base_with_another_stamp_is_not_used(tmp_path: Path) -> None:
    story = Story(tmp_path, large(), large([(8, "data")]))
    assert why(story.run(story.base(stamp="7"))) == ["CONTENT_CHANGED"]


def test_a_base_that_is_gone_is_not_used(tmp_path: Path) -> None:
    story = Story(tmp_path, large(), large([(8, "data")]))
    outcome = story.run(story.base(ref="lost"))
    story.check(outcome)
    assert why(outcome) == ["MISSING"]


def test_a_base_whose_manifest_is_lost_is_not_used(tmp_path: Path) -> None:
    story = Story(tmp_path, large(), large([(8, "data")]))
    outcome = story.run(story.base(manifest=str(tmp_path / "lost")))
    story.check(outcome)
    assert why(outcome) == ["MANIFEST_LOST"]


@pytest.mark.parametrize(
    ("trouble", "code"),
    [("unable", "UNABLE"), ("error", "UNREACHABLE"), ("bug", "FAILED")],
)
def test_where_the_host_can_not_copy_everything_is_sent(tmp_path: Path, trouble: str, code: str) -> None:
    host = Place(troubles=[Trouble("copy", 1, trouble)])
    story = Story(tmp_path, large(), large([(8, "data")]), t0=host)
    end = published(outcome := story.run())
    story.check(outcome)
    assert (end.based, why(outcome)) == (False, [code])


def test_a_host_too_full_for_the_copy_is_not_sent_everything(tmp_path: Path) -> None:
    host = Place(troubles=[Trouble("copy", 1, "full")])
    story = Story(tmp_path, large(), large([(8, "data")]), t0=host)
    outcome = story.run()
    story.check(outcome)
    assert (outcome.code("t0"), host.written) == ("NO_SPACE", 0)


def test_a_copy_that_is_wrong_is_thrown_away(tmp_path: Path) -> None:
    host = Place(troubles=[Trouble("copy-step", 2, "rot")])
    story = Story(tmp_path, large(), large([(8, "data")]), t0=host)
    end = published(outcome := story.run())
    story.check(outcome)
    assert (end.based, why(outcome)) == (False, ["CONTENT_CHANGED"])


def test_a_base_that_is_written_to_while_it_is_copied_is_not_used(tmp_path: Path) -> None:
    host = Place(troubles=[Trouble("copy-step", 2, "change")])
    story = Story(tmp_path, large(), large([(8, "data")]), t0=host)
    end = published(outcome := story.run())
    story.check(outcome)
    assert (end.based, why(outcome)) == (False, ["CONTENT_CHANGED"])


def test_a_copy_that_hangs_stalls_and_can_be_repeated(tmp_path: Path) -> None:
    host = Place(troubles=[Trouble("copy-step", 2, "hang")])
    story = Story(tmp_path, large(), large([(8, "data")]), t0=host)
    outcome = story.run(stall_seconds=0.1)
    assert outcome.code("t0") == "STALLED"
    host.troubles.clear()
    end = published(outcome := story.run())
    story.check(outcome)
    assert (end.based, end.sent) == (True, LEAF)


@pytest.mark.parametrize("call", ["open", "stamp", "close"])
@pytest.mark.parametrize("proven", [True, False])
def test_a_host_that_hangs_over_the_image_it_has_stalls(tmp_path: Path, call: str, proven: bool) -> None:
    host = Place(troubles=[Trouble(call, 1, "hang")])
    story = Story(tmp_path, large(), large([(8, "data")]), t0=host)
    outcome = story.run(story.base(proven=proven), stall_seconds=0.1)
    assert outcome.code("t0") == "STALLED"


def test_after_a_kill_only_the_rest_is_sent_though_nothing_is_copied_again(tmp_path: Path) -> None:
    host = Place(troubles=[Trouble("write", 5, "error")], delay=0.03)
    story = Story(tmp_path, large(), large([(leaf, "data") for leaf in range(0, 160, 16)]), t0=host)
    assert story.run().code("t0") == "UNREACHABLE"
    host.troubles.clear()
    end = published(outcome := story.run())
    story.check(outcome)
    assert 0 < end.sent < 10 * LEAF
    assert host.calls["copy"] == 1


def test_progress_counts_what_the_base_gave_and_sent_does_not(tmp_path: Path) -> None:
    story = Story(
        tmp_path, large(), large([(leaf, "data") for leaf in range(0, 40, 4)]), t0=Place(delay=0.05)
    )
    seen: list[tuple[int, int]] = []

    def act(event: Event) -> list[Command]:
        if isinstance(event, Progress) and "t0" in event.lanes and event.lanes["t0"].total:
            seen.append((event.lanes["t0"].done, event.lanes["t0"].total))
        return []

    end = published(story.run(act=act))
    assert end.sent == 10 * LEAF
    assert {total for _, total in seen} == {story.sealed.disks[0].allocated}
    assert any(total - 10 * LEAF <= done < total for done, total in seen)
    assert all(done <= total for done, total in seen)


# Sealing where the disk is
