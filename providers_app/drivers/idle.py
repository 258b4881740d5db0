"""A process that waits for work ends by itself when none comes."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

IDLE_SECONDS = 30.0


class Idle:
    """Ends the process once nothing was ``busy`` for so many seconds."""

    def __init__(self, seconds: float = IDLE_SECONDS) -> None:
        self._seconds = seconds
        self._lock = threading.Lock()
        self._busy = 0
        self._since = time.monotonic()
        threading.Thread(target=self._watch, name="idle", daemon=True).start()

    @contextmanager
    def busy(self) -> Iterator[None]:
        with self._lock:
            self._busy += 1
        try:
            yield
        finally:
            with self._lock:
                self._busy -= 1
                self._since = time.monotonic()

    def _watch(self) -> None:
        while (left := self._left()) > 0:
            time.sleep(left)
        os._exit(0)

    def _left(self) -> float:
        with self._lock:
            return self._seconds if self._busy else self._since + self._seconds - time.monotonic()
