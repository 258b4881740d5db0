"""Threads that stay for the next piece of work, and keep for it what a thread keeps, such as a driver's process."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Crew(Generic[T]):
    """At most ``most`` threads that do ``work``, which handles its own faults. None of them keeps the process alive."""

    def __init__(self, name: str, work: Callable[[T], None], most: int) -> None:
        self._name, self._work, self._most = name, work, most
        self._changed = threading.Condition()
        self._waiting: deque[T] = deque()
        self._threads = self._busy = 0

    def wait_for_room(self) -> None:
        """Return when one of them has nothing to do."""
        with self._changed:
            self._changed.wait_for(lambda: self._busy < self._most)

    def begin(self, item: T) -> None:
        """Have it done; it waits while all are busy."""
        with self._changed:
            self._busy += 1
            self._waiting.append(item)
            if self._threads < min(self._busy, self._most):
                self._threads += 1
                threading.Thread(target=self._serve, name=self._name, daemon=True).start()
            self._changed.notify_all()

    def _serve(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting)
                item = self._waiting.popleft()
            try:
                self._work(item)
            finally:
                with self._changed:
                    self._busy -= 1
                    self._changed.notify_all()
