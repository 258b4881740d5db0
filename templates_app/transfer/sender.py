"""Sends bytes to a host no faster than is allowed."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

from .limiter import Bucket
from .ports import Sink
from .spent import LIMIT, WRITE, Spent
from .watch import Watch

Waiting = Callable[[], AbstractContextManager[None]]


class Sender:
    """``own`` limits this lane, ``shared`` all lanes together. ``check`` raises once the lane is closed."""

    def __init__(
        self,
        own: Bucket,
        shared: Bucket,
        *,
        watch: Watch,
        spent: Spent,
        lock: threading.Lock,
        check: Callable[[], None],
    ):
        self.closing = threading.Condition(lock)
        self.sent = 0
        self._own, self._shared = own, shared
        self._watch, self._spent, self._lock, self._check = watch, spent, lock, check

    def send(self, sink: Sink, offset: int, view: memoryview, waiting: Waiting) -> None:
        """Write ``view`` at ``offset``, in pieces where there is a limit. ``waiting`` is for others, lock held."""
        while view:
            step = min(self._own.step(len(view)), self._shared.step(len(view)))
            self._pass(self._own, step)
            self._pass(self._shared, step, waiting)
            with self._watch, self._spent.on(WRITE):
                sink.write(offset, view[:step])
            self.sent += step
            offset, view = offset + step, view[step:]

    def receive(self, count: int) -> None:
        """Wait until ``count`` bytes may be read from the host."""
        self._pass(self._own, count)
        self._pass(self._shared, count)

    def _pass(self, bucket: Bucket, count: int, waiting: Waiting = nullcontext) -> None:
        self._check()
        while delay := bucket.take(count):
            with self._lock:
                self._check()
                with self._spent.on(LIMIT), waiting():
                    self.closing.wait(delay)
