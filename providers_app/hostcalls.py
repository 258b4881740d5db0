"""Driver verbs from the outside: in a child process, so that a time-out is a kill. No Django here."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from providers_app.driverprocess import lent
from providers_app.drivers import DriverError, Unreachable, wire

K = TypeVar("K", bound=Hashable)

_TICK = 1.0
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
    with lent([_job("0", host, verb, args)]) as child:
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
    with lent([_job(number, hosts[key], verb, args) for number, key in waiting.items()]) as child:
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
