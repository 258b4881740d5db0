"""The parent's side: the engine as a child process. No Django.

    with Engine.start(job) as engine:
        for event in engine.events(timeout=1.0):
            ...                      # None each time the second is over without an event

The child dies with the *thread* that started it (a property of the kernel's parent death signal), so start it in
the thread that also follows its events.
"""

from __future__ import annotations

import os
import select
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import IO, Self, cast

from rasweb.processes import clean_environment, start_module

from .events import End, Event, decode
from .job import Cancel, Command, Job, Join, LaneJob, Limit, Publish, Stop, encode_command

_CHUNK = 1 << 16
_LONGEST_LINE = 8 << 20
_GRACE_SECONDS = 5.0
KEPT_MEMORY = {  # glibc: what libraries allocate for each megabyte is not given back to the kernel each time
    "MALLOC_MMAP_THRESHOLD_": str(64 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(256 << 20),
    "MALLOC_TOP_PAD_": str(16 << 20),
}


class Engine:
    """One running engine. Not thread-safe, except :meth:`kill`."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self._input, self._output = cast("IO[bytes]", process.stdin), cast("IO[bytes]", process.stdout)
        self._pending = bytearray()
        self._heard = time.monotonic()
        self.ended = False

    @classmethod
    def start(
        cls, job: Job, *, environment: Mapping[str, str] | None = None, stderr: int | None = None
    ) -> Self:
        """Start the child and hand it the job. ``stderr`` as for Popen: the parent's own if None."""
        process = start_module(
            "templates_app.transfer.__main__",
            env=clean_environment(KEPT_MEMORY | _bytecode() | dict(environment or {})),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            bufsize=0,
        )
        engine = cls(process)
        engine._send(job.to_line())
        return engine

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.poll()

    @property
    def crashed(self) -> bool:
        """Whether the process is gone without having said that it ended."""
        return not self.ended and self.returncode is not None

    @property
    def silent_for(self) -> float:
        """Seconds since the last sign of life; a healthy engine speaks at least every two."""
        return time.monotonic() - self._heard

    def events(self, timeout: float = 1.0) -> Iterator[Event | None]:
        """Yield events as they come, None after ``timeout`` seconds without one; end when the process has ended."""
        while not self.ended:
            line = self._line(timeout)
            if line is None:
                yield None
                continue
            if not line:
                break
            event = decode(line)
            self.ended = isinstance(event, End)
            yield event
        self._reap()

    def _line(self, timeout: float) -> bytes | None:
        """The next whole line, None when none came in time, empty at the end."""
        deadline = time.monotonic() + timeout
        while b"\n" not in self._pending:
            left = max(0.0, deadline - time.monotonic())
            if not select.select([self._output], [], [], left)[0]:
                return None
            chunk = os.read(self._output.fileno(), _CHUNK)
            if not chunk or len(self._pending) > _LONGEST_LINE:
                return b""
            self._heard = time.monotonic()
            self._pending += chunk
        line, _, rest = self._pending.partition(b"\n")
        self._pending = bytearray(rest)
        return bytes(line)

    def publish(self, lane: str) -> None:
        self._command(Publish(lane))

    def cancel(self, lane: str) -> None:
        self._command(Cancel(lane))

    def stop(self, lane: str | None = None) -> None:
        self._command(Stop(lane))

    def limit(self, rate: int, lane: str | None = None) -> None:
        self._command(Limit(rate, lane))

    def join(self, lane: LaneJob) -> None:
        self._command(Join(lane))

    def _command(self, command: Command) -> None:
        self._send(encode_command(command))

    def _send(self, line: bytes) -> None:
        view = memoryview(line)
        with suppress(BrokenPipeError, ValueError):  # the process is gone; the end of its events tells
            while view:
                view = view[self._input.write(view) or 0 :]

    def kill(self) -> None:
        """End the process at once. What is durable on the hosts stays and can be resumed."""
        self._process.kill()

    def close(self) -> None:
        """End the process politely, or after a grace time by force; always leaves it reaped."""
        if self.returncode is None and not self.ended:
            self.stop()
        self._close_pipes()
        self._reap()

    def _close_pipes(self) -> None:
        self._input.close()
        self._output.close()

    def _reap(self) -> None:
        try:
            self._process.wait(_GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def _bytecode() -> dict[str, str]:
    """Compiled modules are kept wherever the parent keeps its own: compiling them anew is most of a start."""
    return {"PYTHONDONTWRITEBYTECODE": "1"} if sys.dont_write_bytecode else {}
