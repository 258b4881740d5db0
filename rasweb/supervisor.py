"""Keeps the product's processes running until it is told to end. Standard library only.

Each child is a fork in a session of its own and dies with the supervisor. A child that ends is started again, sooner
after a long life than after a short one. Signals go to a child's main process; what it started is its own to end.
"""

from __future__ import annotations

import fcntl
import logging
import os
import select
import signal
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import IO

from rasweb import tether
from rasweb.forks import forked

log = logging.getLogger(__name__)

_TICK_SECONDS, _LONG_TICK_SECONDS = 0.1, 1.0
_FIRST_PAUSE, _LONGEST_PAUSE = 0.25, 5.0
_LONG_LIFE_SECONDS = 10.0
_MOST_SIGNALS = 64
_TOLD = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class AlreadyRunning(Exception):
    """``holder`` is what the other process wrote about itself, such as its pid and address."""

    def __init__(self, holder: str) -> None:
        super().__init__(holder)
        self.holder = holder


class Lock:
    """One running product per data folder. The kernel frees it when the process ends, however it ends."""

    def __init__(self, path: Path) -> None:
        self._file: IO[str] = open(path, "a+", encoding="utf-8")  # noqa: SIM115  # held until the process ends
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._file.seek(0)
            raise AlreadyRunning(self._file.read().strip()) from None

    def write(self, text: str) -> None:
        """Say who holds the lock, for whoever finds it held."""
        self._file.seek(0)
        self._file.truncate()
        self._file.write(text)
        self._file.flush()

    def close(self) -> None:
        """For a forked child: with what it inherited it would hold the lock too."""
        self._file.close()


@dataclass
class Child:
    """A function to keep running. ``grace``: the seconds it has for ending when told."""

    name: str
    run: Callable[[], object]
    grace: float
    process: BaseProcess | None = None
    _pause: float = _FIRST_PAUSE
    _born: float = 0.0
    _due: float = field(default_factory=time.monotonic)

    @property
    def young(self) -> bool:
        """Whether it began a moment ago, or is not there."""
        return self.process is None or time.monotonic() - self._born < _LONG_LIFE_SECONDS

    def tend(self) -> None:
        """Start it if it is due; if it ended, say when it is due again."""
        now = time.monotonic()
        if self.process is not None and self.process.exitcode is not None:
            self._mourn(self.process.exitcode, now)
        elif self.process is None and now >= self._due:
            self._born = now
            self._start()

    def _start(self) -> None:
        # Held back until the child has handlers of its own: with ours it would take note of them and go on.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _TOLD)
        try:
            self.process = forked(_begin, self.name, self.run)
            self.process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def _mourn(self, status: int, now: float) -> None:
        self.process = None
        self._pause = (
            _FIRST_PAUSE if now - self._born > _LONG_LIFE_SECONDS else min(self._pause * 2, _LONGEST_PAUSE)
        )
        self._due = now + self._pause
        log.error("%s ended with status %d and is started again in %.1f s", self.name, status, self._pause)


def _begin(name: str, run: Callable[[], object]) -> None:
    os.setsid()
    tether.rename(name)
    signal.set_wakeup_fd(-1)
    for number in (*_TOLD, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _TOLD)
    run()


class Supervisor:
    """Runs children until SIGTERM, SIGINT or SIGHUP. A second signal ends them at once."""

    def __init__(self, children: Sequence[Child], every_tick: Callable[[], None] = lambda: None) -> None:
        self._children = children
        self._every_tick = every_tick
        self._signals = 0

    def run(self) -> None:
        for number in _TOLD:
            signal.signal(number, self._told)
        try:
            with _woken_by_signals() as woken:
                while not self._signals:
                    for child in self._children:
                        child.tend()
                    self._every_tick()
                    self._wait(woken)
        finally:
            self._end()

    def _told(self, *_: object) -> None:
        self._signals += 1

    def _wait(self, woken: socket.socket) -> None:
        """Until a signal comes, or a tick is over: a short one while any child is young."""
        young = any(child.young for child in self._children)
        if select.select([woken], [], [], _TICK_SECONDS if young else _LONG_TICK_SECONDS)[0]:
            woken.recv(_MOST_SIGNALS)

    def _end(self) -> None:
        running = [(child, child.process) for child in self._children if child.process is not None]
        began = time.monotonic()
        for _, process in running:
            process.terminate()
        while running:
            patience = time.monotonic() - began
            for child, process in running:
                if self._signals > 1 or patience > child.grace:
                    _kill(process)
            running = [(child, process) for child, process in running if process.exitcode is None]
            time.sleep(_TICK_SECONDS / 2)


@contextmanager
def _woken_by_signals() -> Iterator[socket.socket]:
    """A socket that can be read once a signal came, also that of a child's end: handlers alone end no waiting."""
    signal.signal(signal.SIGCHLD, lambda *_: None)
    reading, writing = socket.socketpair()
    with reading, writing:
        writing.setblocking(False)
        before = signal.set_wakeup_fd(writing.fileno())
        try:
            yield reading
        finally:
            signal.set_wakeup_fd(before)


def _kill(process: BaseProcess) -> None:
    """End it and its whole session at once."""
    if process.pid is not None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def rotate(path: Path, most: int) -> None:
    """Put a log file of more than ``most`` bytes aside; its writers notice and begin a new one."""
    try:
        if path.stat().st_size > most:
            os.replace(path, path.with_name(f"{path.name}.1"))
    except FileNotFoundError:
        return
