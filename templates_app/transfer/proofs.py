"""Reading back what is durable: pieces of one lane, and the threads that take them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from functools import partial

from .buffers import Buffer
from .extents import Run
from .spent import VERIFY, Spent
from .target import Target
from .verify import PIECE


class Proofs:
    """``news`` is notified whenever something was proven. Lock held for ``offer``, ``next``, ``complete``."""

    def __init__(self, lock: threading.Lock, news: threading.Condition, spent: Spent) -> None:
        self.work = threading.Condition(lock)
        self._lock, self._news, self._spent = lock, news, spent
        self._under_way = 0
        self._complete = False

    def offer(self, targets: Iterable[Target]) -> None:
        """Wake a helper if there is something to read back."""
        if any(target.unread for target in targets):
            self.work.notify()

    def next(self, targets: Iterable[Target], buffer: memoryview) -> Callable[[], None] | None:
        """A piece to read back, None while there is none. It may raise and then ends the lane."""
        for target in targets:
            if target.unread:
                stretch = target.unread.popleft()
                self._under_way += 1
                if target.unread:
                    self.work.notify()
                return partial(self._prove, target, stretch, buffer)
        return None

    def _prove(self, target: Target, stretch: list[Run], buffer: memoryview) -> None:
        target.read_back(stretch, buffer)
        with self._lock:
            target.proved(stretch)
            self._under_way -= 1
            self._news.notify_all()

    def complete(self) -> bool:
        """Tell whether all that was taken is proven; then, as nothing else will come, helpers may go."""
        self._complete = not self._under_way
        if self._complete:
            self.work.notify_all()
        return self._complete

    def help(self, targets: Iterable[Target], check: Callable[[], None]) -> None:
        """Take part until all is proven; ``check`` raises when the lane has ended."""
        buffer = Buffer(PIECE).view
        while (prove := self._await(targets, check, buffer)) is not None:
            with self._spent.on(VERIFY):
                prove()

    def _await(
        self, targets: Iterable[Target], check: Callable[[], None], buffer: memoryview
    ) -> Callable[[], None] | None:
        with self._lock:
            while not self._complete:
                check()
                if (proof := self.next(targets, buffer)) is not None:
                    return proof
                self.work.wait()
            return None
