"""The moment at which what a page shows was read. An older part never overwrites a newer one."""

from __future__ import annotations

import threading
import time

_lock = threading.Lock()
_last = 0


def stamp() -> int:
    """Microseconds; each later than the one before in this process, whatever the wall clock does."""
    global _last
    with _lock:
        _last = max(_last + 1, time.time_ns() // 1000)
        return _last
