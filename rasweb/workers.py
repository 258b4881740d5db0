"""The worker set: django-q's processes made crash-only, and the loops that look at the rows.

Every process dies with its parent. The unexpected end of any one, or a sign that the set hangs, ends the whole set
with status 1; whoever started it starts it again. Nothing is lost by that: rows hold the truth, messages are hints.
"""

from __future__ import annotations

import logging
import multiprocessing
import multiprocessing.queues
import os
import queue
import signal
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from uuid import uuid4

from django.conf import settings
from django.db import close_old_connections, connections
from django.utils import timezone
from django.utils.module_loading import import_string
from django_q import cluster
from django_q.models import Failure, OrmQ
from django_q.signals import post_execute
from django_q.worker import worker

from rasweb import pulse
from rasweb.forks import forked
from rasweb.pulse import Beat, stopping

__all__ = ["WorkerSet", "stopping"]

log = logging.getLogger(__name__)

LOOP_LIMIT_SECONDS = 300.0
SENTINEL_LIMIT_SECONDS = 30.0
IDLE = -1.0
FAILURES_KEPT = timedelta(days=7)
_CYCLE_SECONDS = 0.25
_CONNECTION_SECONDS = 600
_CANARY = {"id": "canary", "name": "canary", "func": "rasweb.workers.canary", "args": (), "kwargs": {}}


def canary() -> None:
    """A task that does nothing, to see that tasks are done."""


def _canary_was_done(task: dict[str, Any], **_: Any) -> None:
    if task["name"] == _CANARY["name"]:
        pulse.beat(Beat.CANARY)


post_execute.connect(_canary_was_done)


def tidy() -> None:
    """Forget failures of the queue that nobody will read any more; the rows' own history stays."""
    Failure.objects.filter(stopped__lt=timezone.now() - FAILURES_KEPT).delete()


@dataclass
class Watch:
    """Notices a set that runs but does nothing. Takes no lock that a killed process could have kept."""

    send_canary: Callable[[], None]
    every: float
    limit: float
    _sent: float | None = None
    _starved: float = 0.0
    _looked: float = field(default_factory=time.monotonic)

    def fault(self, now: float, some_idle: bool) -> str:
        """A sentence if the set hangs. ``some_idle``: a worker could have taken the canary."""
        passed, self._looked = now - self._looked, now
        if now - pulse.last(Beat.PUSHER) > self.limit and some_idle:
            return f"The queue was not read for {self.limit:.0f} s"
        if self._sent is None or (pulse.last(Beat.CANARY) >= self._sent and now - self._sent >= self.every):
            self._sent, self._starved = now, 0.0
            self.send_canary()
        elif pulse.last(Beat.CANARY) < self._sent and some_idle:
            self._starved += passed
        if self._starved > self.limit:
            return f"A task waited {self.limit:.0f} s although a worker was free"
        return ""


class Sentinel(cluster.Sentinel):
    """django-q's sentinel that never replaces a process: it ends, and all of the set with it."""

    def spawn_process(self, target: Callable[..., None], *args: Any) -> Any:
        process = forked(target, *args, daemon=True)
        if target is worker:
            process.timer = args[2]  # type: ignore[attr-defined]  # where django-q looks for it
            self.pool.append(process)
        process.start()
        return process

    def guard(self) -> None:
        pulse.beat(Beat.PUSHER)
        self.start_event.set()
        watch = Watch(self._send_canary, settings.CANARY_SECONDS, settings.HANG_SECONDS)
        while not stopping():
            pulse.beat(Beat.SENTINEL)
            fault = self._ended() or watch.fault(time.monotonic(), self._some_idle())
            if fault:
                log.critical("%s. The worker set ends.", fault)
                os._exit(1)
            time.sleep(_CYCLE_SECONDS)
        self.stop_event.set()
        self.stop()

    def _ended(self) -> str:
        named = [
            *((process, "worker") for process in self.pool),
            (self.monitor, "monitor"),
            (self.pusher, "pusher"),
        ]
        for process, name in named:
            if not process.is_alive():
                return f"A {name} process ended with status {process.exitcode}"
        return ""

    def _some_idle(self) -> bool:
        # get_obj: the number without its lock, which a killed worker may have kept
        return any(process.timer.get_obj().value == IDLE for process in self.pool)

    def _send_canary(self) -> None:
        # The plain queue's put: django-q's own counts under a lock that a killed worker may have kept.
        try:
            multiprocessing.queues.Queue.put(self.task_queue, dict(_CANARY), block=False)
        except queue.Full:
            log.info("The workers' queue is full")


class Loop(threading.Thread):
    """Calls a function every few seconds. A fault in it is logged and slows it down, but never ends it."""

    slowest = 30.0

    def __init__(self, dotted: str, seconds: float) -> None:
        super().__init__(name=dotted, daemon=True)
        self.dotted = dotted
        self.seconds = seconds
        self.began: float | None = None

    def run(self) -> None:
        pause = self.seconds
        while not stopping():
            pause = self.seconds if self.once() else min(max(self.slowest, self.seconds), pause * 2)
            time.sleep(pause)

    def once(self) -> bool:
        self.began = time.monotonic()
        try:
            import_string(self.dotted)()
            close_old_connections()
        except Exception:
            log.exception("%s failed and will be called again", self.dotted)
            connections.close_all()
            return False
        finally:
            self.began = None
        return True

    def hangs(self, limit: float) -> bool:
        began = self.began
        return began is not None and time.monotonic() - began > limit


class WorkerSet:
    """The queue's processes and the loops of one ``manage.py worker``."""

    def __init__(self, loops: Iterable[tuple[str, float]], drain: float) -> None:
        self.loops: Sequence[Loop] = [Loop(dotted, seconds) for dotted, seconds in loops]
        self.drain = drain

    def run(self) -> int:
        """Work until told to stop. Returns the exit status: 0 as told, 1 after a fault."""
        pulse.renew()
        forget_taken()
        connections["default"].settings_dict["CONN_MAX_AGE"] = _CONNECTION_SECONDS
        connections.close_all()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: pulse.stop())
        sentinel = self._fork_sentinel()
        for loop in self.loops:
            loop.start()
        fault = self._watch(sentinel)
        if not fault:
            sentinel.join(self.drain)
        if sentinel.is_alive():
            sentinel.kill()
            sentinel.join()
        if fault:
            log.critical("%s. The worker set ends.", fault)
        return 1 if fault else 0

    @staticmethod
    def _fork_sentinel() -> multiprocessing.process.BaseProcess:
        events = (multiprocessing.Event(), multiprocessing.Event())
        pulse.beat(Beat.SENTINEL)
        sentinel = forked(Sentinel, *events, uuid4())
        sentinel.start()
        return sentinel

    def _watch(self, sentinel: multiprocessing.process.BaseProcess) -> str:
        """Wait until told to stop; a sentence if the set broke before."""
        while not stopping():
            sentinel.join(_CYCLE_SECONDS)
            if not sentinel.is_alive():
                return "" if stopping() else f"The sentinel ended with status {sentinel.exitcode}"
            if time.monotonic() - pulse.last(Beat.SENTINEL) > SENTINEL_LIMIT_SECONDS:
                return "The sentinel does not answer"
            for loop in self.loops:
                if loop.hangs(LOOP_LIMIT_SECONDS):
                    return f"{loop.dotted} did not return for {LOOP_LIMIT_SECONDS:.0f} s"
        return ""


def forget_taken() -> None:
    """Drop messages that a former set had taken and not done. The reconciler asks again for what is due."""
    OrmQ.objects.filter(lock__gt=timezone.now()).delete()


def run() -> int:
    return WorkerSet(settings.LOOPS, settings.DRAIN_SECONDS).run()
