"""Where the time of a lane goes: the answer to "why is it slow"."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from threading import get_ident
from typing import Protocol

PREPARE = "prepare"
COPY = "copy"
SOURCE = "source"
HASH = "hash"
OTHERS = "others"
LIMIT = "limit"
WRITE = "write"
FLUSH = "flush"
VERIFY = "verify"


class Spent:
    """Seconds by what they were spent on, summed over threads. What is still going on counts up to now.

    Entered several times for each block and lane, so this is plain on purpose.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._sums: dict[str, float] = {}
        self._running: dict[int, _Count] = {}

    def on(self, what: str) -> _Stretch:
        """Count the time inside as ``what``, and as nothing else."""
        return _Stretch(self, _Own(what))

    def waiting_for(self, other: Spent) -> _Stretch:
        """Count the time inside as what ``other`` spends meanwhile; nothing while that is idle itself."""
        return _Stretch(self, _Others(other))

    def seconds(self) -> dict[str, float]:
        with self._lock:
            now, sums = self._clock(), dict(self._sums)
            for count in self._running.values():
                count.add(sums, now)
        return sums

    def begin(self, count: _Count) -> _Count | None:
        """Count from now on, in this thread; return what was counted there until now."""
        me = get_ident()
        with self._lock:
            now = self._clock()
            outer = self._running.get(me)
            if outer:
                outer.add(self._sums, now)
            count.start(now)
            self._running[me] = count
        return outer

    def end(self, outer: _Count | None) -> None:
        """Go on with what was counted before."""
        me = get_ident()
        with self._lock:
            now = self._clock()
            self._running.pop(me).add(self._sums, now)
            if outer:
                outer.start(now)
                self._running[me] = outer


class _Count(Protocol):
    """What a stretch of time counts as, from ``start`` on."""

    def start(self, now: float) -> None: ...
    def add(self, sums: dict[str, float], now: float) -> None: ...


class _Own:
    __slots__ = ("_since", "_what")

    def __init__(self, what: str) -> None:
        self._what = what

    def start(self, now: float) -> None:
        self._since = now

    def add(self, sums: dict[str, float], now: float) -> None:
        sums[self._what] = sums.get(self._what, 0.0) + now - self._since


class _Others:
    __slots__ = ("_before", "_other")

    def __init__(self, other: Spent) -> None:
        self._other = other

    def start(self, now: float) -> None:
        self._before = self._other.seconds()

    def add(self, sums: dict[str, float], now: float) -> None:
        for what, seconds in self._other.seconds().items():
            sums[what] = sums.get(what, 0.0) + seconds - self._before.get(what, 0.0)


class _Stretch:
    __slots__ = ("_count", "_outer", "_spent")

    def __init__(self, spent: Spent, count: _Count) -> None:
        self._spent, self._count = spent, count

    def __enter__(self) -> None:
        self._outer = self._spent.begin(self._count)

    def __exit__(self, *exc: object) -> None:
        self._spent.end(self._outer)
