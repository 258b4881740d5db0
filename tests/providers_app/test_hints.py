"""The process that watches hosts, and what its hints do."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest
from django.utils import timezone

from providers_app import hints
from providers_app.hints import Watcher
from providers_app.models import Provider
from tests.product import alive, wait_for
from tests.templates_app.conftest import Hosts

NOWHERE = {
    "id": 7,
    "name": "nowhere",
    "kind": "libvirt",
    "settings": {"transport": "local", "socket": "/nowhere"},
    "secrets": {},
    "since": None,
}


@pytest.fixture
def watcher() -> Iterator[Watcher]:
    made = Watcher()
    yield made
    made.close()


def told(watcher: Watcher, *hosts: dict[str, Any]) -> int:
    """Have hosts watched until there is a hint; the process that gave it."""

    def turn() -> set[int]:
        watcher.watch(hosts)
        return watcher.hints(0.05)

    assert wait_for(turn, 20.0, "a hint") == {host["id"] for host in hosts}
    assert watcher.process is not None
    return watcher.process.pid


def test_the_process_is_there_while_it_is_needed_and_comes_back(
    watcher: Watcher, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(hints, "_LONGEST_PAUSE", 0.1)
    watcher.watch([])
    assert watcher.hints(0.01) == set()
    assert watcher.process is None

    first = told(watcher, NOWHERE)
    os.kill(first, signal.SIGKILL)
    second = told(watcher, NOWHERE)
    assert second != first
    assert "ended and is started again" in caplog.text

    os.kill(second, signal.SIGSTOP)
    monkeypatch.setattr(hints, "SILENT_SECONDS", 0.1)
    wait_for(lambda: not watcher.hints(0.05) and watcher.process is None, what="the end of a silent process")
    monkeypatch.undo()
    assert "fell silent" in caplog.text
    assert not alive(second)

    third = told(watcher, NOWHERE)
    watcher.watch([])
    assert (alive(third), watcher.process) == (False, None)


def test_enabled_hosts_that_can_be_watched_are(hosts: Hosts) -> None:
    hosts.add("folder")
    rows = [
        Provider.objects.create(
            name=name, kind="libvirt", settings={"pool": "images"}, host_id=name, enabled=name != "off"
        )
        for name in ("on", "off", "back")
    ]
    rows[2].touch(online_since=timezone.now())
    on, back = hints._hosts()
    assert (on["id"], on["name"], on["kind"], on["since"]) == (rows[0].pk, "on", "libvirt", None)
    assert on["settings"]["pool"] == "images"
    assert on["settings"]["host_id"] == "on"
    assert (back["id"], bool(back["since"])) == (rows[2].pk, True)
