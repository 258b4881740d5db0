"""Limits, rates and when to speak."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from templates_app.transfer.faults import fault_of, source_fault_of
from templates_app.transfer.limiter import BURST_SECONDS, SMALLEST_STEP, Bucket
from templates_app.transfer.progress import Pace, Rate, Throttle
from templates_app.transfer.spent import Spent

from .filehost import HostError


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@given(st.integers(10**7, 10**9), st.lists(st.integers(1, 4 << 20), min_size=5, max_size=60))
def test_a_limit_holds_on_average_whatever_the_pieces(rate: int, pieces: list[int]) -> None:
    clock = Clock()
    bucket = Bucket(rate, clock)
    for piece in pieces:
        while delay := bucket.take(piece):
            clock.now += delay
    while delay := bucket.take(0):
        clock.now += delay
    seconds = clock.now - 100.0
    assert sum(pieces) / rate - BURST_SECONDS - 0.001 <= seconds <= sum(pieces) / rate + 0.001 * len(pieces)


def test_no_limit_never_waits() -> None:
    bucket = Bucket()
    assert [bucket.take(1 << 40) for _ in range(3)] == [0.0] * 3
    assert bucket.step(1 << 22) == 1 << 22


def test_a_limit_that_is_lifted_frees_who_waits() -> None:
    clock = Clock()
    bucket = Bucket(1000, clock)
    assert bucket.take(10**9) == 0.0
    assert bucket.take(1) > 0
    bucket.limit(0)
    assert bucket.take(1) == 0.0


@given(st.integers(1, 10**10), st.integers(1, 4 << 20))
def test_steps_keep_direct_writes_aligned(rate: int, wanted: int) -> None:
    step = Bucket(rate).step(wanted)
    assert 0 < step <= wanted
    assert step == wanted or step % SMALLEST_STEP == 0


def test_a_rate_is_the_mean_of_the_last_thirty_seconds() -> None:
    clock = Clock()
    rate = Rate(clock)
    for second in range(100):
        clock.now = 100.0 + second
        found = rate.update(1000 * second if second < 50 else 1000 * 50)
    assert found == 0.0
    clock.now += 15
    assert rate.update(50_000 + 30_000) == pytest.approx(30_000 / 30, rel=0.6)


def test_a_pace_counts_only_the_time_with_work() -> None:
    clock = Clock()
    pace = Pace(2.0, clock)
    for _ in range(10):
        pace.begin("piece")
        clock.now += 0.1
        pace.end("piece", 1000)
        clock.now += 0.9
    assert pace.rate(2.0, 0.0) == pytest.approx(10_000)


def test_a_pace_leaves_out_what_is_waited_for_others_while_it_lasts_too() -> None:
    clock = Clock()
    pace = Pace(60.0, clock)
    pace.begin("piece")
    clock.now += 1
    pace.end("piece", 1000)
    pace.begin("next")
    with pace.paused("next"):
        clock.now += 5
        assert pace.rate(2.0, 0.0) == pytest.approx(1000)
        pace.begin("beside")
        pace.end("beside", 0)
    pace.end("next", 0)
    assert pace.rate(2.0, 0.0) == pytest.approx(1000)


def test_a_pace_is_never_better_than_its_limit() -> None:
    clock = Clock()
    pace = Pace(2.0, clock, limit=lambda: 500.0)
    pace.begin("piece")
    clock.now += 0.1
    pace.end("piece", 100)
    assert (pace.rate(0.05, 0.0), pace.limit()) == (500.0, 500.0)


def test_a_pace_needs_time_to_judge_by() -> None:
    clock = Clock()
    pace = Pace(2.0, clock)
    pace.begin("piece")
    clock.now += 1.9
    assert pace.rate(2.0, -1.0) == -1.0
    clock.now += 0.2
    assert pace.rate(2.0, -1.0) == 0.0


def test_time_is_counted_once_as_what_it_is_spent_on_now() -> None:
    clock = Clock()
    spent, reader = Spent(clock), Spent(clock)
    with spent.on("prepare"):
        clock.now += 1
        with spent.on("limit"):
            clock.now += 2
            assert spent.seconds() == {"prepare": 1, "limit": 2}
        clock.now += 4
    with spent.waiting_for(reader):
        clock.now += 8
        with reader.on("source"):
            clock.now += 16
    assert spent.seconds() == {"prepare": 5, "limit": 2, "source": 16}


@pytest.mark.parametrize(("change", "times"), [(True, 25), (False, 4)])
def test_a_throttle_speaks_seldom_and_when_nothing_changes_even_less(change: bool, times: int) -> None:
    clock = Clock()
    throttle = Throttle(0.25, 2.0, clock)
    spoken = 0
    for number in range(100):
        spoken += throttle.due(number if change else 0)
        clock.now += 0.0625
    assert spoken == times


@pytest.mark.parametrize(
    ("error", "code", "permanent"),
    [
        (OSError(28, "full"), "NO_SPACE", True),
        (OSError(122, "quota"), "NO_SPACE", True),
        (OSError(5, "io"), "IO_ERROR", False),
        (OSError(13, "access"), "PERMISSION", True),
        (OSError("no number"), "IO_ERROR", False),
        (HostError("IN_USE", "It is in use.", permanent=True), "IN_USE", True),
        (KeyError("x"), "FAILED", False),
    ],
    ids=repr,
)
def test_every_error_becomes_a_fault_in_words(error: Exception, code: str, permanent: bool) -> None:
    fault = fault_of(error)
    assert (fault.code, fault.permanent) == (code, permanent)
    assert fault.text.endswith(".")
    assert fault.action


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (HostError("UNREACHABLE", "Gone.", permanent=False), "SOURCE_UNREACHABLE"),
        (HostError("MISSING", "Gone.", permanent=True), "SOURCE_MISSING"),
        (HostError("CONTENT_CHANGED", "Other.", permanent=True), "SOURCE_CHANGED"),
        (HostError("PREREQUISITE", "Hostile.", permanent=True), "PREREQUISITE"),
        (OSError(5, "io"), "SOURCE_UNREACHABLE"),
    ],
    ids=repr,
)
def test_faults_of_the_source_are_told_apart(error: Exception, code: str) -> None:
    assert source_fault_of(error).code == code
