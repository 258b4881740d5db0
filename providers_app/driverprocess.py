"""The process that driver verbs run in: started, fed, heard, kept for the next call, and killed. No Django here."""

from __future__ import annotations

import json
import logging
import os
import selectors
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import IO, Any, cast

from providers_app.drivers.idle import IDLE_SECONDS
from rasweb import processes

LONGEST_ANSWER = 64 << 20
MOST_JOBS = 500  # whatever a library leaks goes with the process
_KEPT_SECONDS = IDLE_SECONDS / 3  # the process ends by itself long after nobody sends it anything any more
log = logging.getLogger(__name__)


class DriverProcess:
    """``ended``: it will answer nothing any more. Belongs to the thread that made it, and dies with it."""

    def __init__(self) -> None:
        self.ended = False
        self._environment = processes.clean_environment()
        self._owed: set[str] = set()
        self._jobs = 0
        self._idle_since = time.monotonic()
        self._input = self._rest = b""
        self._process = processes.start_module(
            "providers_app.drivers.__main__",
            env=self._environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self._stdin = cast(IO[bytes], self._process.stdin)
        self._stdout = cast(IO[bytes], self._process.stdout)
        self._watch = selectors.DefaultSelector()
        os.set_blocking(self._stdin.fileno(), False)
        os.set_blocking(self._stdout.fileno(), False)
        self._watch.register(self._stdout, selectors.EVENT_READ)

    def send(self, jobs: Sequence[Mapping[str, Any]]) -> None:
        """Give it jobs, each with an ``id`` of its own; they are written while one listens to ``answers``."""
        self._owed = {str(job["id"]) for job in jobs}
        self._jobs += len(jobs)
        self._input = b"".join(json.dumps(job).encode() + b"\n" for job in jobs)
        self._watch.register(self._stdin, selectors.EVENT_WRITE)

    def answers(self, seconds: float) -> list[dict[str, Any]]:
        """Wait at most ``seconds``; return the answers that came, and note the end of the process."""
        found: list[dict[str, Any]] = []
        for key, _ in self._watch.select(seconds):
            if key.fileobj is self._stdin:
                self._feed()
            else:
                found += self._read()
        self._owed -= {str(answer.get("id")) for answer in found}
        return found

    def _feed(self) -> None:
        try:
            self._input = self._input[os.write(self._stdin.fileno(), self._input) :]
        except BrokenPipeError:
            self._input = b""
        if not self._input:
            self._watch.unregister(self._stdin)
            self._idle_since = time.monotonic()

    def _read(self) -> list[dict[str, Any]]:
        data = os.read(self._stdout.fileno(), 1 << 20)
        self.ended = not data or len(self._rest) > LONGEST_ANSWER
        *lines, self._rest = (self._rest + data).split(b"\n")
        return [answer for line in lines if (answer := _parsed(line))]

    def settled(self) -> bool:
        """Whether it has answered all it was asked, so that whatever it says next belongs to what it is asked next."""
        return not (self.ended or self._owed or self._input or self._rest or self._jobs >= MOST_JOBS)

    def usable(self) -> bool:
        """Whether it may be sent something now: not long after the last, and in the surroundings it was started in."""
        return (
            time.monotonic() - self._idle_since < _KEPT_SECONDS
            and self._process.poll() is None
            and self._environment == processes.clean_environment()
        )

    def end(self) -> None:
        """Kill it and what it started; one that hangs in the kernel is left to the kernel."""
        self._watch.close()
        for pipe in (self._stdin, self._stdout):
            with suppress(BrokenPipeError):
                pipe.close()
        if self._process.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(1.0)


class _Kept(threading.local):
    process: DriverProcess | None = None


_kept = _Kept()


def _forget() -> None:
    """What a process has kept is not its forked child's."""
    _kept.process = None


os.register_at_fork(after_in_child=_forget)


@contextmanager
def lent(jobs: Sequence[Mapping[str, Any]]) -> Iterator[DriverProcess]:
    """Lend a process that was sent ``jobs``: the one that this thread kept, or a new one.

    One that has answered everything is kept for the next call: starting it takes longer than most verbs do. One that
    has not is killed with all it started.
    """
    process, _kept.process = _kept.process, None
    if process is not None and not process.usable():
        process.end()
        process = None
    process = process or DriverProcess()
    try:
        process.send(jobs)
        yield process
    finally:
        if process.settled() and _kept.process is None:
            _kept.process = process
        else:
            process.end()


def let_go() -> None:
    """End the process that this thread has kept, if any."""
    if _kept.process is not None:
        _kept.process.end()
        _kept.process = None


def _parsed(line: bytes) -> dict[str, Any]:
    try:
        answer = json.loads(line)
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        log.error("A driver wrote something that is no answer: %r", line[:200])
        return {}
    return answer
