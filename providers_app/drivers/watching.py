"""Watches hosts in a process of its own: lists of hosts on stdin, hints on stdout, one JSON text a line.

A hint is the key of a host that should be looked at. They come in lists, and an empty one every few seconds shows that
all is well. Each host has a thread of its own: one that hangs in a library keeps nobody from anything.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from threading import Condition, Event, Thread
from typing import Any, TextIO

from rasweb.logs import Formatter
from rasweb.tether import die_with_parent

from . import DriverError, open_driver

BEAT_SECONDS = 10.0
_GATHER_SECONDS = 0.1
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 5.0
_LASTING_PAUSE = 60.0
_HINTS_OF_SILENCE = 4  # enough for the checks to find out whether the host is away
log = logging.getLogger("rasweb.watching")


class Outbox:
    """What is to be told: each host once, however often it spoke."""

    def __init__(self) -> None:
        self._filled = Condition()
        self._keys: set[int] = set()

    def put(self, key: int) -> None:
        with self._filled:
            self._keys.add(key)
            self._filled.notify()

    def take(self, seconds: float) -> list[int]:
        """Wait for hints, at most ``seconds``; return all there are."""
        with self._filled:
            self._filled.wait_for(lambda: self._keys, seconds)
            taken, self._keys = self._keys, set()
        return sorted(taken)


class Watch(Thread):
    """Listens to one host until told to end. A host that is lost is tried again and again.

    ``host`` has ``id``, ``name`` for the log, ``kind``, ``settings``, ``secrets``, and ``since``: when it last came
    back, as far as the checks know.
    """

    def __init__(self, host: Mapping[str, Any], outbox: Outbox) -> None:
        super().__init__(name=f"watch-{host['id']}", daemon=True)
        self.host = host
        self._listens = False
        self._tries = 0
        self._outbox = outbox
        self._ended = Event()

    def end(self) -> None:
        """Have it end soon; one that hangs in a library ends when that returns."""
        self._ended.set()

    def serves(self, host: Mapping[str, Any]) -> bool:
        """Tell whether it can stay now that ``host`` is wanted.

        A check that got through while this still waits for an answer shows that there will be none.
        """
        same = {**self.host, "since": None} == {**host, "since": None}
        if same and (self._listens or self.host["since"] == host["since"]):
            self.host = host
            return True
        return False

    def run(self) -> None:
        while not self._ended.is_set():
            pause = self._listen()
            self._listens = False
            if self._tries < _HINTS_OF_SILENCE and not self._ended.is_set():
                self._outbox.put(self.host["id"])
            self._ended.wait(pause or min(_FIRST_PAUSE * 2 ** min(self._tries, 9), _LONGEST_PAUSE))
            self._tries += 1

    def _listen(self) -> float:
        """Listen until the host is lost; return the seconds to wait then, 0 for as few as may be."""
        try:
            driver = open_driver(self.host["kind"], self.host["settings"], self.host["secrets"])
            driver.watch(self._heard, self._ended)
        except DriverError as error:
            if not self._tries:
                log.info("%s is not heard: %s", self.host["name"], error.text)
            return _LASTING_PAUSE if error.permanent else 0.0
        except Exception:
            log.exception("The driver of %s failed", self.host["name"])
            return _LASTING_PAUSE
        return 0.0

    def _heard(self) -> None:
        if self._ended.is_set():
            return
        if not self._listens:
            log.info("%s is heard", self.host["name"])
        self._listens, self._tries = True, 0
        self._outbox.put(self.host["id"])


class Watches:
    """All watches, kept in step with the list of hosts that are wanted."""

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox
        self._running: dict[int, Watch] = {}

    def follow(self, hosts: Sequence[Mapping[str, Any]]) -> None:
        """Watch these hosts, and no others."""
        wanted = {host["id"]: host for host in hosts}
        for key, watch in list(self._running.items()):
            if key not in wanted or not watch.serves(wanted[key]):
                self._running.pop(key).end()
        for key in wanted.keys() - self._running.keys():
            self._running[key] = Watch(wanted[key], self._outbox)
            self._running[key].start()


def report(outbox: Outbox, hints: TextIO) -> None:
    """Write what is to be told; return when nobody reads it any more."""
    with suppress(BrokenPipeError):
        while True:
            hints.write(json.dumps(outbox.take(BEAT_SECONDS)) + "\n")
            hints.flush()
            time.sleep(_GATHER_SECONDS)


def _report_and_end(outbox: Outbox, hints: TextIO) -> None:
    report(outbox, hints)
    os._exit(1)


def _log_to_stderr() -> None:
    """What drivers log of a host that is away is left out: the checks log the same."""
    handler = logging.StreamHandler()
    handler.setFormatter(Formatter())
    logging.basicConfig(level=logging.ERROR, handlers=[handler])
    log.setLevel(logging.INFO)


def main(parent: int) -> None:
    """Follow the lists until there are no more, or until the process ``parent`` ends."""
    die_with_parent(parent)
    _log_to_stderr()
    hints = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    outbox = Outbox()
    Thread(target=_report_and_end, args=(outbox, hints), name="report", daemon=True).start()
    watches = Watches(outbox)
    for line in sys.stdin:
        watches.follow(json.loads(line))
    os._exit(0)
