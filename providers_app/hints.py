"""Hosts that tell when something changed on them. All that a hint does is to bring the next check forward.

One process watches all such hosts; without it, or where a hint is lost, the checks find out the same a little later.
"""

from __future__ import annotations

import json
import logging
import os
import selectors
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from django.db.models import QuerySet

from providers_app import health
from providers_app.drivers import KINDS, load
from providers_app.drivers.watching import BEAT_SECONDS
from providers_app.models import Provider
from rasweb import processes
from rasweb.refusals import Refusal
from rasweb.rows import standing

WAIT_SECONDS = 1.0
SILENT_SECONDS = 6 * BEAT_SECONDS
_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 60.0
_LONG_LIFE_SECONDS = 60.0
log = logging.getLogger(__name__)


def follow() -> None:
    """Have the enabled hosts that can be watched watched, and act on their hints. A turn takes about a second."""
    _watcher.watch(_hosts())
    health.check_soon(_watcher.hints(WAIT_SECONDS))


def _hosts() -> list[dict[str, Any]]:
    hosts = []
    for provider in _watched():
        with suppress(Refusal):  # its secrets can not be read: the checks say so
            address = provider.address()
            since = provider.online_since
            hosts.append(
                {
                    "id": provider.pk,
                    "name": provider.name,
                    "kind": address.kind,
                    "settings": dict(address.settings),
                    "secrets": dict(address.secrets),
                    "since": since and since.isoformat(),
                }
            )
    return hosts


@standing
def _watched() -> QuerySet[Provider]:
    kinds = [kind for kind in KINDS if load(kind).watchable]
    return Provider.objects.filter(enabled=True, kind__in=kinds).order_by("pk")


class Watcher:
    """The process that watches: runs while there are hosts to watch, and is started again when it ended or hangs."""

    def __init__(self) -> None:
        self.process: subprocess.Popen[bytes] | None = None
        self._told: Sequence[dict[str, Any]] = ()
        self._rest = b""
        self._born = self._heard_at = self._due = 0.0
        self._pause = _FIRST_PAUSE

    def watch(self, hosts: Sequence[dict[str, Any]]) -> None:
        """Have it watch these hosts and no others."""
        if not hosts:
            self.close()
        elif self.process is None and time.monotonic() >= self._due:
            self._start()
        if self.process is not None and self.process.stdin is not None and hosts != self._told:
            try:
                self.process.stdin.write(json.dumps(hosts).encode() + b"\n")
                self.process.stdin.flush()
                self._told = hosts
            except BrokenPipeError:
                self._lost("ended")

    def hints(self, seconds: float) -> set[int]:
        """Wait for hints, at most ``seconds``; return the keys of the hosts that should be looked at."""
        if self.process is None or self.process.stdout is None:
            time.sleep(seconds)
            return set()
        with selectors.DefaultSelector() as ready:
            ready.register(self.process.stdout, selectors.EVENT_READ)
            if not ready.select(seconds):
                if time.monotonic() - self._heard_at > SILENT_SECONDS:
                    self._lost("fell silent")
                return set()
        data = os.read(self.process.stdout.fileno(), 1 << 16)
        if not data:
            self._lost("ended")
        self._heard_at = time.monotonic()
        *lines, self._rest = (self._rest + data).split(b"\n")
        return {key for line in lines for key in json.loads(line)}

    def close(self) -> None:
        """End it."""
        if self.process is not None:
            processes.kill(self.process)
            for pipe in (self.process.stdin, self.process.stdout):
                if pipe is not None:
                    with suppress(BrokenPipeError):
                        pipe.close()
        self.process, self._told, self._rest = None, (), b""

    def _start(self) -> None:
        self.process = processes.start_module(
            "providers_app.drivers.watching",
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self._born = self._heard_at = time.monotonic()

    def _lost(self, how: str) -> None:
        now = time.monotonic()
        self._pause = (
            _FIRST_PAUSE if now - self._born > _LONG_LIFE_SECONDS else min(2 * self._pause, _LONGEST_PAUSE)
        )
        self._due = now + self._pause
        log.error("The process that watches hosts %s and is started again in %.0f s", how, self._pause)
        self.close()


_watcher = Watcher()
