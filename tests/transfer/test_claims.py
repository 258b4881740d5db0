"""Single claims about a run, each with the least that shows it."""

from __future__ import annotations

import random
import time
from dataclasses import replace
from pathlib import Path

import pytest

from templates_app.transfer.events import Event, Failed, Phase, Progress, Sealed, Verified
from templates_app.transfer.job import Cancel, Command, Stop

from .drive import BLOCK, LEAF, SMALL, drive, make_job
from .memoryhost import Disk, Place, Trouble, World, disk_of
from .scenes import places, release, seal, source_with, whole


def test_the_source_is_read_once_for_all_hosts(tmp_path: Path) -> None:
    made = whole(12)
    source, hosts = source_with(made), places(4)
    patient = replace(SMALL, laggard_seconds=60)
    drive(make_job(tmp_path, list(hosts), ["disk0"]), World(source=source, **hosts), tuning=patient)
    assert source.read == len(made.content)


def test_a_block_in_several_pieces_is_announced_to_its_source(tmp_path: Path) -> None:
    leaves = (random.Random(number).randbytes(LEAF) + bytes(LEAF) for number in range(4))
    made = disk_of(b"".join(leaves) + random.Random(9).randbytes(2 * BLOCK), [], LEAF)
    job = make_job(tmp_path, ["t0"], ["disk0"], sealed=seal(tmp_path, made))
    source, host = source_with(made), Place()
    assert drive(job, World(source=source, t0=host)).code("t0") == "published"
    assert source.calls["expect"] == 2  # of the four blocks there are


def test_zeros_inside_data_are_not_sent(tmp_path: Path) -> None:
    content = random.Random(1).randbytes(BLOCK) + bytes(3 * BLOCK) + random.Random(2).randbytes(LEAF)
    hosts = places(1)
    outcome = drive(
        make_job(tmp_path, ["t0"], ["disk0"]), World(source=source_with(disk_of(content, [], LEAF)), **hosts)
    )
    assert outcome.code("t0") == "published"
    assert hosts["t0"].written == BLOCK + LEAF


@pytest.mark.parametrize(("sequential", "writers"), [(False, SMALL.writers_alone), (True, 1)])
def test_a_host_that_is_fastest_with_one_thread_that_writes_gets_no_more(
    tmp_path: Path, sequential: bool, writers: int
) -> None:
    made = whole(40)
    host = Place(sequential=sequential, delay=0.001)
    job = make_job(tmp_path, ["t0"], ["disk0"], sealed=seal(tmp_path, made))
    assert drive(job, World(source=source_with(made), t0=host)).code("t0") == "published"
    assert len(host.callers["write"]) == writers
    assert not sequential or len(host.callers["readback"]) <= 2


def in_pieces(count: int) -> Disk:
    """A disk with data in every other block, so that each is written and read back by one call."""
    pieces = (random.Random(number).randbytes(BLOCK) + bytes(BLOCK) for number in range(count))
    return disk_of(b"".join(pieces), [], LEAF)


def test_reading_back_goes_on_while_a_flush_takes_its_time(tmp_path: Path) -> None:
    class Slow(Place):
        overlapped = 0

        def call(self, name: str) -> str:
            before = self.calls["readback"]
            if name in ("flush", "readback"):
                time.sleep(0.02 if name == "flush" else 0.002)
            self.overlapped += name == "flush" and self.calls["readback"] - before
            return super().call(name)

    made, host = in_pieces(60), Slow(sequential=True, delay=0.001)
    job = make_job(tmp_path, ["t0"], ["disk0"], sealed=seal(tmp_path, made))
    assert drive(job, World(source=source_with(made), t0=host)).code("t0") == "published"
    assert host.overlapped > 0


def test_who_writes_waits_for_who_reads_back(tmp_path: Path) -> None:
    class Slow(Place):
        ahead = 0

        def call(self, name: str) -> str:
            if name == "readback":
                time.sleep(0.002)
            self.ahead = max(self.ahead, self.calls["write"] - self.calls["readback"])
            return super().call(name)

    made, host = in_pieces(60), Slow(sequential=True)
    job = make_job(tmp_path, ["t0"], ["disk0"], sealed=seal(tmp_path, made))
    assert drive(job, World(source=source_with(made), t0=host)).code("t0") == "published"
    assert host.ahead <= SMALL.unproven_bytes // BLOCK + 1


def test_an_image_is_flushed_in_smaller_steps_near_its_ends(tmp_path: Path) -> None:
    made, host = whole(16), Place(sequential=True, delay=0.01)
    steps = replace(SMALL, journal_bytes=100 * BLOCK, first_journal_bytes=BLOCK, journal_seconds=60)
    job = make_job(tmp_path, ["t0"], ["disk0"], sealed=seal(tmp_path, made))
    assert drive(job, World(source=source_with(made), t0=host), tuning=steps).code("t0") == "published"
    assert host.calls["flush"] >= 4  # two are at the end, whatever the steps are


def test_a_hanging_host_does_not_stop_the_others(tmp_path: Path) -> None:
    made = whole(16)
    hosts = {"t0": Place(troubles=[Trouble("write", 2, "hang")]), "t1": Place()}
    job = make_job(tmp_path, list(hosts), ["disk0"], sealed=seal(tmp_path, made), stall_seconds=0.4)
    try:
        outcome = drive(job, World(source=source_with(made), **hosts))
    finally:
        release(*hosts.values())
    assert (outcome.code("t0"), outcome.code("t1")) == ("STALLED", "published")


@pytest.mark.parametrize("call", ["connect", "stage", "hole", "flush", "readback", "commit"])
def test_any_call_that_hangs_ends_the_lane_as_stalled(tmp_path: Path, call: str) -> None:
    made = whole(3)
    hosts = {"t0": Place(troubles=[Trouble(call, 1, "hang")]), "t1": Place()}
    job = make_job(tmp_path, list(hosts), ["disk0"], stall_seconds=0.1)
    try:
        outcome = drive(job, World(source=source_with(made), **hosts))
    finally:
        release(*hosts.values())
    assert (outcome.code("t0"), outcome.code("t1")) == ("STALLED", "published")


def test_a_source_that_hangs_is_unreachable_and_everything_is_kept(tmp_path: Path) -> None:
    made = whole(8)
    source = source_with(made, troubles=[Trouble("read", 5, "hang")])
    hosts = places(2)
    job = make_job(tmp_path, list(hosts), ["disk0"], sealed=seal(tmp_path, made), stall_seconds=0.1)
    try:
        outcome = drive(job, World(source=source, **hosts))
    finally:
        release(source)
    assert {outcome.code(lane) for lane in (None, "t0", "t1")} == {"SOURCE_UNREACHABLE"}
    assert all(place.staged for place in hosts.values())


def test_a_source_that_changes_while_it_is_sealed_publishes_nothing(tmp_path: Path) -> None:
    made = whole(8)
    source, hosts = source_with(made, troubles=[Trouble("read", 3, "change")]), places(2)
    outcome = drive(make_job(tmp_path, list(hosts), ["disk0"]), World(source=source, **hosts))
    assert {outcome.code(lane) for lane in (None, "t0", "t1")} == {"SOURCE_CHANGED"}
    assert outcome.sealed is None
    assert all(not place.staged and not place.published for place in hosts.values())


def test_another_source_goes_on_where_one_was_found_to_differ(tmp_path: Path) -> None:
    made = whole(20)
    rotten = disk_of(made.content[: 18 * BLOCK] + bytes([1]) * (2 * BLOCK), [], LEAF)
    hosts = {"t0": Place(delay=0.01)}
    job = make_job(tmp_path, ["t0"], ["disk0"], sealed=seal(tmp_path, made))
    end = drive(job, World(source=source_with(rotten), **hosts)).of("t0")
    assert isinstance(end, Failed)
    assert (end.code, end.permanent, end.kept) == ("SOURCE_CHANGED", True, True)
    before = hosts["t0"].written
    assert drive(job, World(source=source_with(made), **hosts)).code("t0") == "published"
    assert hosts["t0"].written - before <= 10 * BLOCK


def test_a_source_that_differs_from_its_manifest_ends_the_run(tmp_path: Path) -> None:
    sealed = seal(tmp_path, whole(8))
    other = disk_of(random.Random(99).randbytes(8 * BLOCK), [], LEAF)
    hosts = places(1)
    job = make_job(tmp_path, ["t0"], ["disk0"], sealed=sealed)
    outcome = drive(job, World(source=source_with(other), **hosts))
    assert outcome.code("t0") == "SOURCE_CHANGED"


def test_a_manifest_that_is_lost_ends_the_run_in_words(tmp_path: Path) -> None:
    made = whole(2)
    sealed = seal(tmp_path, made)
    Path(sealed.disks[0].manifest).unlink()
    hosts = places(1)
    job = make_job(tmp_path, ["t0"], ["disk0"], sealed=sealed)
    assert drive(job, World(source=source_with(made), **hosts)).code("t0") == "MANIFEST_LOST"


def test_of_several_disks_all_are_published_or_none(tmp_path: Path) -> None:
    hosts = {"t0": Place(troubles=[Trouble("commit", 2, "refuse")])}
    outcome = drive(
        make_job(tmp_path, ["t0"], ["disk0", "disk1"]), World(source=source_with(whole(1), whole(2)), **hosts)
    )
    assert outcome.code("t0") == "REFUSED"
    assert hosts["t0"].calls["remove"] == hosts["t0"].calls["abort"] == 1
    assert hosts["t0"].published == hosts["t0"].staged == {}


def test_a_disk_that_is_published_waits_there_for_one_that_is_tried_again(tmp_path: Path) -> None:
    hosts = {"t0": Place(troubles=[Trouble("commit", 2, "error")])}
    outcome = drive(
        make_job(tmp_path, ["t0"], ["disk0", "disk1"]), World(source=source_with(whole(1), whole(2)), **hosts)
    )
    assert outcome.code("t0") == "UNREACHABLE"
    assert len(hosts["t0"].published) == len(hosts["t0"].staged) == 1


def test_bytes_that_rot_on_the_way_are_found_before_publishing(tmp_path: Path) -> None:
    hosts = {"t0": Place(troubles=[Trouble("write", 2, "rot")])}
    outcome = drive(make_job(tmp_path, ["t0"], ["disk0"]), World(source=source_with(whole(6)), **hosts))
    assert outcome.code("t0") == "CHECKSUM_MISMATCH"
    assert hosts["t0"].staged == hosts["t0"].published == {}


def test_a_write_that_fails_is_never_taken_for_one_that_is_done(tmp_path: Path) -> None:
    hosts = {"t0": Place(troubles=[Trouble("write", 1, "late")])}
    outcome = drive(make_job(tmp_path, ["t0"], ["disk0"]), World(source=source_with(whole(1)), **hosts))
    assert outcome.code("t0") == "FAILED"
    assert hosts["t0"].published == {}


def test_a_full_host_is_a_lasting_fault_and_keeps_nothing(tmp_path: Path) -> None:
    hosts = {"t0": Place(troubles=[Trouble("write", 2, "full")])}
    outcome = drive(make_job(tmp_path, ["t0"], ["disk0"]), World(source=source_with(whole(6)), **hosts))
    end = outcome.of("t0")
    assert isinstance(end, Failed)
    assert (end.code, end.permanent, end.kept) == ("NO_SPACE", True, False)
    assert hosts["t0"].staged == {}


def test_a_resumed_lane_sends_only_what_is_not_proven(tmp_path: Path) -> None:
    made = whole(20)
    sealed = seal(tmp_path, made)
    hosts = {"t0": Place(troubles=[Trouble("write", 15, "error")], delay=0.01)}
    job = make_job(tmp_path, ["t0"], ["disk0"], sealed=sealed)
    assert drive(job, World(source=source_with(made), **hosts)).code("t0") == "UNREACHABLE"
    before = hosts["t0"].written
    source = source_with(made)
    assert drive(job, World(source=source, **hosts)).code("t0") == "published"
    assert hosts["t0"].written - before <= 10 * BLOCK
    assert source.read <= 10 * BLOCK


def test_a_slow_host_does_not_slow_the_others(tmp_path: Path) -> None:
    made = whole(40)
    hosts = {"t0": Place(delay=0.08), "t1": Place(delay=0.004), "t2": Place(delay=0.004)}
    ended: dict[str, float] = {}
    begun = time.monotonic()

    def act(event: Event) -> list[Command]:
        if isinstance(event, Verified):
            ended[event.lane] = time.monotonic() - begun
            if len(ended) == 2:
                return [Cancel("t0")]
        return []

    source = source_with(made)
    job = make_job(tmp_path, list(hosts), ["disk0"], sealed=seal(tmp_path, made))
    drive(job, World(source=source, **hosts), act=act, tuning=replace(SMALL, laggard_seconds=0.15))
    assert set(ended) == {"t1", "t2"}
    assert max(ended.values()) < 2.5  # 40 blocks at the slow host's pace take more than three seconds
    assert source.read < 2 * len(made.content)


def test_a_host_with_a_low_limit_leaves_the_others_at_once(tmp_path: Path) -> None:
    made = whole(40)
    hosts = {"limited": Place(), "t1": Place(delay=0.004), "t2": Place(delay=0.004)}
    ended: list[str] = []

    def act(event: Event) -> list[Command]:
        if isinstance(event, Verified):
            ended.append(event.lane)
        return [Cancel("limited")] if {"t1", "t2"} <= set(ended) else []

    source = source_with(made)
    job = make_job(tmp_path, list(hosts), ["disk0"], sealed=seal(tmp_path, made))
    job = replace(job, lanes=[replace(job.lanes[0], bandwidth=LEAF * 20), *job.lanes[1:]])
    tuning = replace(SMALL, laggard_seconds=60, leader_seconds=0.004)
    outcome = drive(job, World(source=source, **hosts), act=act, tuning=tuning)
    assert outcome.code("limited") == "CANCELLED"  # by itself it would have taken eight seconds
    assert source.read < 2 * len(made.content)


def test_hosts_that_share_a_limit_stay_together(tmp_path: Path) -> None:
    made = whole(40)
    hosts = {f"t{number}": Place(delay=0.001) for number in range(4)}
    source = source_with(made)
    job = make_job(tmp_path, list(hosts), ["disk0"], sealed=seal(tmp_path, made))
    job = replace(job, bandwidth=2 * len(made.content))
    outcome = drive(job, World(source=source, **hosts), tuning=replace(SMALL, laggard_seconds=0.15))
    assert {outcome.code(lane) for lane in hosts} == {"published"}
    assert source.read < 2 * len(made.content)  # by themselves each would read it


def test_nothing_is_published_before_it_is_ordered(tmp_path: Path) -> None:
    hosts = places(1)

    def act(event: Event) -> list[Command]:
        assert hosts["t0"].published == {}
        return [Stop()] if isinstance(event, Verified) else []

    world = World(source=source_with(whole(2)), **hosts)
    outcome = drive(make_job(tmp_path, ["t0"], ["disk0"]), world, act=act, publish=False)
    assert outcome.code("t0") == "STOPPED"
    assert hosts["t0"].staged


def test_a_verified_lane_is_published_though_the_source_is_gone(tmp_path: Path) -> None:
    made = whole(12)
    source = source_with(made)
    hosts = {"t0": Place(), "t1": Place(delay=0.05)}

    def act(event: Event) -> list[Command]:
        if isinstance(event, Verified) and event.lane == "t0":
            source.troubles.extend(Trouble("stamp", at, "refuse") for at in range(50))
        return []

    job = make_job(tmp_path, list(hosts), ["disk0"], sealed=seal(tmp_path, made))
    outcome = drive(job, World(source=source, **hosts), act=act)
    assert (outcome.code("t0"), outcome.code("t1")) == ("published", "REFUSED")


def test_progress_goes_from_nothing_to_all_and_never_beyond(tmp_path: Path) -> None:
    made = disk_of(random.Random(5).randbytes(30 * BLOCK), [7, 20], LEAF)
    seen: list[tuple[int, int]] = []

    def act(event: Event) -> list[Command]:
        if isinstance(event, Progress) and event.lanes:
            lane = event.lanes["t0"]
            seen.append((lane.done, lane.total))
        return []

    job = make_job(tmp_path, ["t0"], ["disk0"], sealed=seal(tmp_path, made))
    drive(job, World(source=source_with(made), t0=Place(delay=0.03)), act=act)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert all(done <= total for done, total in seen)


def test_phases_come_in_order(tmp_path: Path) -> None:
    outcome = drive(make_job(tmp_path, ["t0"], ["disk0"]), World(source=source_with(whole(4)), t0=Place()))
    assert [type(event).__name__ for event in outcome.events if not isinstance(event, Sealed)] == [
        "Phase",
        "Phase",
        "Verified",
        "Published",
    ]
    assert [event.phase for event in outcome.events if isinstance(event, Phase)] == ["copying", "verifying"]


def test_a_window_of_two_buffers_is_enough_for_any_number_of_hosts(tmp_path: Path) -> None:
    tuning = replace(SMALL, windows=(2, 1))
    made = whole(30)
    hosts = places(5)
    outcome = drive(
        make_job(tmp_path, list(hosts), ["disk0"]), World(source=source_with(made), **hosts), tuning=tuning
    )
    assert {outcome.code(lane) for lane in hosts} == {"published"}
    assert SMALL.block == BLOCK
