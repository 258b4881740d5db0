"""Token buckets: how fast a lane, or all lanes together, may send."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from math import inf

BURST_SECONDS = 0.1
SMALLEST_STEP = 64 << 10
_SHORTEST_NAP, _LONGEST_NAP = 0.001, 0.2


class Bucket:
    """Lets ``rate`` bytes per second through on average, 0 = no limit. Thread-safe; the rate may change any time.

    Whoever finds the bucket above empty may take all it needs at once; the debt makes the next one wait.
    """

    def __init__(self, rate: int = 0, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self.limit(rate)

    def limit(self, rate: int) -> None:
        with self._lock:
            self.rate = max(0, rate)
            self._level = 0.0
            self._at = self._clock()

    def most(self) -> float:
        """Bytes per second that it lets through."""
        return self.rate or inf

    def take(self, count: int) -> float:
        """Take ``count`` tokens and return 0, or take nothing and return the seconds to wait before asking again."""
        with self._lock:
            if not self.rate:
                return 0.0
            now = self._clock()
            self._level = min(self.rate * BURST_SECONDS, self._level + (now - self._at) * self.rate)
            self._at = now
            if self._level >= 0:
                self._level -= count
                return 0.0
            return min(_LONGEST_NAP, max(_SHORTEST_NAP, -self._level / self.rate))

    def step(self, wanted: int) -> int:
        """Largest piece to send at once, so that a slow limit still moves often."""
        rate = self.rate
        return (
            min(wanted, max(1, int(rate * BURST_SECONDS) // SMALLEST_STEP) * SMALLEST_STEP)
            if rate
            else wanted
        )
