"""Driver verbs from the outside: each in a child process, so that a time-out is a kill. No Django here."""

from __future__ import annotations

import json
import logging
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, TypeVar

from providers_app.drivers import DriverError, Unreachable, wire
from rasweb import processes

K = TypeVar("K", bound=Hashable)

LONGEST_ANSWER = 64 << 20
_TICK = 1.0
_PROJECT = Path(__file__).resolve().parents[1]
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class HostAddress:
    """What a driver needs to reach a host. Its repr hides the secrets."""

    kind: str
    settings: Mapping[str, Any]
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)


class Stopped(Exception):
    """``on_tick`` said stop; the child was killed."""


def call(
    host: HostAddress,
    verb: str,
    *,
    timeout: float,
    on_tick: Callable[[], bool] | None = None,
    **args: Any,
) -> Any:
    """Run one verb and return its result, rebuilt into the contract's dataclasses.

    Raises the host's DriverError; Unreachable (TIMEOUT) after ``timeout`` seconds; Stopped as soon as ``on_tick``,
    asked every second, returns false.
    """
    with _Child([_job("0", host, verb, args)]) as child:
        deadline = time.monotonic() + timeout
        while (left := deadline - time.monotonic()) > 0:
            for answer in child.answers(min(_TICK, left)):
                return _result(verb, answer)
            if child.ended:
                raise _crashed()
            if on_tick and not on_tick():
                raise Stopped
    raise _silent(timeout)


def call_many(
    hosts: Mapping[K, HostAddress], verb: str, *, timeout: float, **args: Any
) -> Iterator[tuple[K, Any]]:
    """Run one verb on many hosts at once; yield (key, result or DriverError) in the order in which they answer.

    A host that has not answered after ``timeout`` seconds yields Unreachable (TIMEOUT); it delays no other.
    """
    if not hosts:
        return
    waiting = {str(number): key for number, key in enumerate(hosts)}
    with _Child(_job(number, hosts[key], verb, args) for number, key in waiting.items()) as child:
        deadline = time.monotonic() + timeout
        while waiting and not child.ended and (left := deadline - time.monotonic()) > 0:
            for answer in child.answers(left):
                if (key := waiting.pop(str(answer.get("id")), None)) is not None:
                    yield key, _outcome(verb, answer)
        crashed = child.ended
    for key in waiting.values():
        yield key, _crashed() if crashed else _silent(timeout)


def _job(number: str, host: HostAddress, verb: str, args: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "id": number,
        "kind": host.kind,
        "settings": dict(host.settings),
        "secrets": dict(host.secrets),
        "verb": verb,
        "args": {name: wire.plain(value) for name, value in args.items()},
    }


def _outcome(verb: str, answer: Mapping[str, Any]) -> Any:
    try:
        return _result(verb, answer)
    except DriverError as error:
        return error


def _result(verb: str, answer: Mapping[str, Any]) -> Any:
    try:
        if answer["ok"]:
            return wire.result(verb, answer["result"])
        error = wire.rebuild_error(answer["error"])
    except (AttributeError, KeyError, TypeError, ValueError):
        log.exception("The answer of a driver to %s makes no sense", verb)
        raise DriverError(
            "The host's driver gave an answer that makes no sense.", action="Look at the log."
        ) from None
    raise error


def _silent(seconds: float) -> Unreachable:
    return Unreachable(
        f"The host did not answer within {seconds:.0f} seconds.",
        code="TIMEOUT",
        action="Check the host and the way to it.",
    )


def _crashed() -> DriverError:
    return DriverError("The host's driver ended unexpectedly.", action="Look at the log, then retry.")


class _Child:
    """The driver process: gets all its jobs at once, is killed on leaving."""

    def __init__(self, jobs: Iterable[Mapping[str, Any]]) -> None:
        self._input = b"".join(json.dumps(job).encode() + b"\n" for job in jobs)
        self._rest = b""
        self.ended = False

    def __enter__(self) -> _Child:
        self._process = processes.start(
            [sys.executable, "-m", "providers_app.drivers"],
            cwd=_PROJECT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self._watch = selectors.DefaultSelector()
        for pipe, event in (
            (self._process.stdin, selectors.EVENT_WRITE),
            (self._process.stdout, selectors.EVENT_READ),
        ):
            if pipe is not None:
                os.set_blocking(pipe.fileno(), False)
                self._watch.register(pipe, event)
        return self

    def __exit__(self, *exc: object) -> None:
        self._watch.close()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe and not pipe.closed:
                with suppress(BrokenPipeError):
                    pipe.close()
        self._end()

    def _end(self) -> None:
        """Kill it and what it started; one that hangs in the kernel is left to the kernel."""
        if self._process.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(1.0)

    def answers(self, seconds: float) -> list[dict[str, Any]]:
        """Wait at most ``seconds``; return the answers that came, and note the end of the process."""
        found: list[dict[str, Any]] = []
        for key, _ in self._watch.select(seconds):
            if key.fileobj is self._process.stdin:
                self._feed(self._process.stdin)
            else:
                found += self._read(key.fd)
        return found

    def _feed(self, pipe: IO[bytes]) -> None:
        try:
            self._input = self._input[os.write(pipe.fileno(), self._input) :]
        except BrokenPipeError:
            self._input = b""
        if not self._input:
            self._watch.unregister(pipe)
            pipe.close()

    def _read(self, fd: int) -> list[dict[str, Any]]:
        data = os.read(fd, 1 << 20)
        self.ended = not data or len(self._rest) > LONGEST_ANSWER
        *lines, self._rest = (self._rest + data).split(b"\n")
        return [answer for line in lines if (answer := _parsed(line))]


def _parsed(line: bytes) -> dict[str, Any]:
    try:
        answer = json.loads(line)
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        log.error("A driver wrote something that is no answer: %r", line[:200])
        return {}
    return answer
