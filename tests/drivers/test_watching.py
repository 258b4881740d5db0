"""Hosts that are watched: what becomes a hint, and hosts that are lost, hang or come back."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any

import pytest

from providers_app import drivers
from providers_app.drivers import Refused, Unreachable, watching
from providers_app.drivers.simulator.driver import Simulator
from providers_app.drivers.watching import Outbox, Watch, Watches
from tests.drivers.benches import Bench
from tests.product import wait_for

LOST = Unreachable("The host is lost.")
CHANGED = "changed"


class Talkative(Simulator):
    """A host that says what the test has it say. While ``up`` is not set it is lost, or silent if so set."""

    watchable = True
    said: SimpleQueue[Any]
    up: threading.Event
    listeners: int

    def watch(self, tell: Callable[[], None], ended: threading.Event) -> None:
        kind = type(self)
        if not kind.up.wait(60 if self.settings.get("silent") else 0):
            raise LOST
        tell()
        kind.listeners += 1
        try:
            while not ended.is_set():
                with suppress(Empty):
                    _say(kind.said.get(timeout=0.01), tell)
        finally:
            kind.listeners -= 1


def _say(what: Any, tell: Callable[[], None]) -> None:
    if isinstance(what, Exception):
        raise what
    tell()


@pytest.fixture
def talkative(monkeypatch: pytest.MonkeyPatch) -> type[Talkative]:
    monkeypatch.setitem(drivers.KINDS, "talkative", f"{__name__}.Talkative")  # type: ignore[arg-type]  # a plain dict
    monkeypatch.setattr(watching, "_FIRST_PAUSE", 0.01)
    monkeypatch.setattr(watching, "_LONGEST_PAUSE", 0.02)
    Talkative.said, Talkative.up, Talkative.listeners = SimpleQueue(), threading.Event(), 0
    Talkative.up.set()
    return Talkative


@pytest.fixture
def outbox() -> Outbox:
    return Outbox()


@pytest.fixture
def watches(outbox: Outbox) -> Iterator[Watches]:
    made = Watches(outbox)
    yield made
    made.follow([])
    wait_for(lambda: not any(isinstance(thread, Watch) for thread in threading.enumerate()))


def host(number: int = 1, **parts: Any) -> dict[str, Any]:
    known = {"id": number, "name": f"host-{number}", "kind": "talkative", "settings": {}, "secrets": {}}
    return {**known, "since": None, **parts}


def hints(outbox: Outbox) -> list[int]:
    return outbox.take(10.0)


def test_only_some_kinds_can_be_watched(bench: Bench) -> None:
    driver = bench.driver()
    if not driver.watchable:
        with pytest.raises(Refused):
            driver.watch(lambda: None, threading.Event())


def test_listening_and_changes_are_hints(
    watches: Watches, outbox: Outbox, talkative: type[Talkative]
) -> None:
    watches.follow([host(7)])
    assert hints(outbox) == [7]
    talkative.said.put(CHANGED)
    assert hints(outbox) == [7]
    assert outbox.take(0.0) == []


def test_many_changes_are_few_hints() -> None:
    outbox = Outbox()
    for key in (2, 1) * 200:
        outbox.put(key)
    assert (outbox.take(1.0), outbox.take(0.0)) == ([1, 2], [])


def test_a_lost_host_is_a_few_hints_and_is_heard_again_when_it_is_back(
    watches: Watches, outbox: Outbox, talkative: type[Talkative], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    watches.follow([host()])
    assert hints(outbox) == [1]
    talkative.up.clear()
    talkative.said.put(LOST)
    while outbox.take(0.3):
        pass
    talkative.up.set()
    assert hints(outbox) == [1]
    assert [record.getMessage() for record in caplog.records] == [
        "host-1 is heard",
        "host-1 is not heard: The host is lost.",
        "host-1 is heard",
    ]


@pytest.mark.parametrize("error", [Refused("No.", code="PERMISSION"), ValueError("nonsense")])
def test_what_lasts_is_not_tried_again_before_a_check_got_through(
    watches: Watches, outbox: Outbox, talkative: type[Talkative], error: Exception
) -> None:
    talkative.said.put(error)
    watches.follow([host()])
    while outbox.take(0.1):
        pass
    assert talkative.listeners == 0
    watches.follow([host(since="now")])
    assert hints(outbox) == [1]


def test_a_silent_host_delays_no_other_and_is_asked_anew_when_a_check_got_through(
    watches: Watches, outbox: Outbox, talkative: type[Talkative]
) -> None:
    talkative.up.clear()
    silent = {"settings": {"silent": True}}
    watches.follow([host(1, **silent)])
    first = watches._running[1]
    watches.follow([host(1, **silent), host(2)])
    assert watches._running[1] is first
    assert hints(outbox) == [2]
    watches.follow([host(1, **silent, since="now")])
    assert watches._running[1] is not first
    talkative.up.set()
    wait_for(lambda: talkative.listeners == 1 and not first.is_alive())


def test_watches_follow_the_list_of_hosts(
    watches: Watches, outbox: Outbox, talkative: type[Talkative]
) -> None:
    watches.follow([host(1), host(2)])
    wait_for(lambda: talkative.listeners == 2)
    kept, changed = watches._running[1], watches._running[2]
    watches.follow([host(1, since="later"), host(2, settings={"pool": "other"})])
    assert watches._running[1] is kept
    assert watches._running[2] is not changed
    wait_for(lambda: not changed.is_alive())
    watches.follow([])
    wait_for(lambda: talkative.listeners == 0)


def test_hints_are_written_as_lists_and_a_sign_of_life_without_any(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "BEAT_SECONDS", 0.01)
    monkeypatch.setattr(watching, "_GATHER_SECONDS", 0.01)
    outbox = Outbox()
    outbox.put(3)
    reading, writing = os.pipe()
    with os.fdopen(reading) as read, suppress(BrokenPipeError), os.fdopen(writing, "w") as written:
        thread = threading.Thread(target=watching.report, args=(outbox, written))
        thread.start()
        assert [json.loads(read.readline()) for _ in range(3)] == [[3], [], []]
        read.close()
        thread.join(10)
        assert not thread.is_alive()
