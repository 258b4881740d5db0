"""Rates and when to speak of them."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from math import inf

MEAN_SECONDS = 30.0


class Rate:
    """Moving mean of a growing count over the last 30 seconds, in units per second."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._samples: deque[tuple[float, int]] = deque()

    def update(self, count: int) -> float:
        now = self._clock()
        self._samples.append((now, count))
        while len(self._samples) > 2 and now - self._samples[1][0] >= MEAN_SECONDS:
            self._samples.popleft()
        then, before = self._samples[0]
        return (count - before) / (now - then) if now > then else 0.0


class Pace:
    """How fast a lane is by itself: bytes for each second in which it had work, over the last ``seconds`` or more.

    Time spent waiting for others does not count. ``limit`` is what it is allowed. Used under the run's lock.
    """

    def __init__(
        self,
        seconds: float,
        clock: Callable[[], float] = time.monotonic,
        *,
        limit: Callable[[], float] = lambda: inf,
    ) -> None:
        self._seconds = seconds
        self._clock = clock
        self.limit = limit
        self._busy = 0.0
        self._bytes = 0
        self._since: dict[object, float] = {}
        self._waits: dict[object, float] = {}
        self._marks: deque[tuple[float, float, int]] = deque([(clock(), 0.0, 0)])

    def begin(self, work: object) -> None:
        self._since[work] = self._clock()

    def end(self, work: object, count: int) -> None:
        now = self._clock()
        self._busy += now - self._since.pop(work, now)
        self._bytes += count
        self._marks.append((now, self._busy, self._bytes))
        while len(self._marks) > 2 and now - self._marks[1][0] >= self._seconds:
            self._marks.popleft()

    @contextmanager
    def paused(self, work: object) -> Iterator[None]:
        """While ``work`` waits for others: not the lane's own fault, also as long as it lasts."""
        begun = self._clock()
        self._waits[work] = begun
        try:
            yield
        finally:
            del self._waits[work]
            self._since[work] += self._clock() - begun

    def rate(self, least: float, default: float, *, share: float = 0.0) -> float:
        """Bytes per busy second; ``default`` with less than ``least`` seconds to judge by, less than ``share`` of
        them busy, or nothing done."""
        now = self._clock()
        then, busy_then, bytes_then = self._marks[0]
        if now - then < least:
            return default
        busy = self._busy - busy_then + self._elapsed(self._since, now) - self._elapsed(self._waits, now)
        judged = busy > share * (now - then)
        return min(self.limit(), (self._bytes - bytes_then) / busy) if judged else default

    @staticmethod
    def _elapsed(begun: Mapping[object, float], now: float) -> float:
        return sum(now - since for since in begun.values())


class Throttle:
    """Says whether to report: what changed at most once in ``least`` seconds, what did not once in ``most``."""

    def __init__(self, least: float, most: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._least, self._most, self._clock = least, most, clock
        self._at = clock() - most
        self._last: object = None

    def due(self, state: object) -> bool:
        now = self._clock()
        if now - self._at < (self._most if state == self._last else self._least):
            return False
        self._at, self._last = now, state
        return True
