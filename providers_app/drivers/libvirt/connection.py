"""The only module that loads libvirt: connecting within a time limit, and noticing hosts that fell silent."""

from __future__ import annotations

import threading
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any

from providers_app.drivers.errors import Refused, Unreachable

from .errors import errors

CONNECT_SECONDS = 9.0
_KEEPALIVE_SECONDS, _KEEPALIVE_COUNT = 5, 3
_starting = threading.Lock()
_started = False


def library() -> Any:
    """Return the library, ready for use; PREREQUISITE where it is not installed."""
    try:
        import libvirt
    except ImportError:
        raise Refused(
            "libvirt hosts need the Python library libvirt-python, which is not installed here.",
            code="PREREQUISITE",
            action="Install it on the machine that runs rasweb: see docs/drivers/libvirt.md.",
        ) from None
    _start(libvirt)
    return libvirt


def _start(libvirt: Any) -> None:
    """Let a thread of its own run the library's events: without it no lost connection is ever noticed."""
    global _started
    with _starting:
        if _started:
            return
        libvirt.registerErrorHandler(lambda *_: None, None)
        libvirt.virEventRegisterDefaultImpl()
        threading.Thread(target=_run_events, args=(libvirt,), name="libvirt-events", daemon=True).start()
        _started = True


def _run_events(libvirt: Any) -> None:
    while True:
        with suppress(libvirt.libvirtError):
            libvirt.virEventRunDefaultImpl()


def connect(uri: str, where: str) -> Any:
    """Open a connection. The library itself would wait for a silent host for minutes, so a thread does the waiting."""
    libvirt = library()
    answers: SimpleQueue[Any] = SimpleQueue()
    given_up = threading.Event()

    def attempt() -> None:
        try:
            answers.put(_open(libvirt, uri))
        except libvirt.libvirtError as error:
            answers.put(error)
        if given_up.is_set():
            _close_late(libvirt, answers)

    threading.Thread(target=attempt, name="libvirt-connect", daemon=True).start()
    try:
        answer = answers.get(timeout=CONNECT_SECONDS)
    except Empty:
        given_up.set()
        raise Unreachable(
            f"The host {where} did not answer within {CONNECT_SECONDS:.0f} seconds.",
            code="TIMEOUT",
            action="Check the host and the way there.",
        ) from None
    with errors("the connection", where):
        if isinstance(answer, libvirt.libvirtError):
            raise answer
        answer.setKeepAlive(_KEEPALIVE_SECONDS, _KEEPALIVE_COUNT)
    return answer


def connect_patiently(uri: str, where: str, keepalive: tuple[int, int]) -> Any:
    """Open a connection, and wait for a silent host for as long as it is silent.

    ``keepalive``: the seconds between two questions, and how many may go unanswered.
    """
    libvirt = library()
    with errors("the connection", where):
        link = _open(libvirt, uri)
        link.setKeepAlive(*keepalive)
    return link


def _open(libvirt: Any, uri: str) -> Any:
    return libvirt.openAuth(uri, [[], None, None], libvirt.VIR_CONNECT_NO_ALIASES)


def _close_late(libvirt: Any, answers: SimpleQueue[Any]) -> None:
    with suppress(Empty, AttributeError, libvirt.libvirtError):
        answers.get_nowait().close()
