"""One hub per web process: it hears what changed, renders once, and hands the same text to all browsers.

The hub holds the only subscription to the channel layer. What it hears are keys; it collects them and, a few
times a second at most, asks for the frame of each topic somebody is looking at. Lost pokes are found by a look
at what changed lately. A browser holds at most one waiting frame per topic: the newest.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Protocol

from channels.db import database_sync_to_async
from channels.layers import BaseChannelLayer
from django.utils import timezone

from rasweb.live import GROUP

log = logging.getLogger(__name__)

FAULTS = 3  # of one topic in a row, until its pages are told to read themselves
LONGEST = 10  # of the growing pauses between two tries

Key = tuple[str, int]
Send = Callable[[dict[str, Any]], Awaitable[None]]


class Frame(Protocol):
    """``parts``: HTML fragments, each root with ``id`` and ``data-v``. ``refresh``: read the page again."""

    @property
    def parts(self) -> str: ...
    @property
    def refresh(self) -> bool: ...


@dataclass(frozen=True)
class Pace:
    """How often and how long, in seconds."""

    flush: float = 0.25
    repair: float = 5.0
    overlap: float = 2.0
    beat: float = 10.0
    send: float = 10.0
    pause: float = 1.0


@dataclass(eq=False)
class Viewer:
    """One browser: what waits for it, and the task that sends it."""

    send: Send
    topics: frozenset[str]
    limit: float
    _waiting: dict[str, tuple[str, str]] = field(default_factory=dict)
    _wake: asyncio.Event = field(default_factory=asyncio.Event)

    def offer(self, slot: str, text: str, instead: str = "") -> None:
        """Put ``text`` into its slot; ``instead`` of it when a frame that still waited there is lost by this."""
        if slot in self._waiting:
            text = instead or text
        self._waiting[slot] = (text, instead)
        self._wake.set()

    async def deliver(self) -> None:
        """Send what waits until cancelled. Raises TimeoutError when the browser does not take it in time."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._waiting:
                slot = next(iter(self._waiting))
                text, _ = self._waiting.pop(slot)
                async with asyncio.timeout(self.limit):
                    await self.send({"type": "websocket.send", "text": text})


class Hub:
    """Joins changes and viewers. ``frame`` and ``recent`` read the database and run in a thread."""

    def __init__(
        self,
        layer: BaseChannelLayer,
        frame: Callable[[str, set[Key]], Frame],
        recent: Callable[[datetime], Mapping[str, Iterable[Key]]],
        pace: Pace | None = None,
    ) -> None:
        self.pace = pace or Pace()
        self._layer = layer
        self._frame = database_sync_to_async(frame, thread_sensitive=False)
        self._recent = database_sync_to_async(recent, thread_sensitive=False)
        self._viewers: dict[str, set[Viewer]] = {}
        self._dirty: dict[str, set[Key]] = {}
        self._faults: dict[str, int] = {}
        self._later: dict[str, set[Key]] = {}
        self._wake = asyncio.Event()
        self._listening = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    async def join(self, send: Send, topics: Iterable[str]) -> Viewer:
        """A new viewer, greeted only when nothing that happens from now on can pass it by."""
        self._start()
        with suppress(TimeoutError):  # a layer that is down: the looks at what changed lately must do
            await asyncio.wait_for(self._listening.wait(), self.pace.pause)
        viewer = Viewer(send, frozenset(topics), self.pace.send)
        for topic in viewer.topics:
            self._viewers.setdefault(topic, set()).add(viewer)
        viewer.offer("hello", '{"hello": true}')
        return viewer

    def leave(self, viewer: Viewer) -> None:
        for topic in viewer.topics:
            viewers = self._viewers.get(topic, set())
            viewers.discard(viewer)
            if not viewers:
                self._viewers.pop(topic, None)

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()

    def mark(self, topics: Mapping[str, Iterable[Iterable[Any]]]) -> None:
        """Remember changed keys of topics somebody looks at."""
        for topic, keys in topics.items():
            if topic in self._viewers:
                self._dirty.setdefault(topic, set()).update((str(kind), int(pk)) for kind, pk in keys)
                self._wake.set()

    def _start(self) -> None:
        if not self._tasks:
            rounds = (self._listen, self._flush, self._repair, self._beat)
            self._tasks = [asyncio.create_task(self._keep(one)) for one in rounds]

    async def _keep(self, task: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run a task for ever: a fault in it is logged, and it begins again after a pause."""
        while True:
            try:
                await task()
            except Exception:
                log.exception("Live updates: %s failed and begins again", task.__name__.strip("_"))
            await asyncio.sleep(self.pace.pause)

    async def _listen(self) -> None:
        self._listening.clear()
        channel = await self._layer.new_channel()
        await self._layer.group_add(GROUP, channel)
        self._listening.set()
        while True:
            message = await self._layer.receive(channel)
            self.mark(message["topics"])

    async def _flush(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            dirty, self._dirty = self._dirty, {}
            try:
                while dirty:
                    topic = next(iter(dirty))
                    await self._show(topic, dirty[topic])
                    del dirty[topic]
            finally:
                self.mark(dirty)
            await asyncio.sleep(self.pace.flush)

    async def _show(self, topic: str, keys: set[Key]) -> None:
        if topic not in self._viewers:
            return
        if topic in self._later:
            self._later[topic] |= keys
            return
        try:
            frame = await self._frame(topic, keys)
        except Exception:  # of this topic alone: the others go on
            log.exception("Live updates: %s can not be shown and is tried again", topic)
            self._show_later(topic, keys)
            return
        self._faults.pop(topic, None)
        text = _text(topic, frame.parts, frame.refresh)
        instead = _text(topic, frame.parts, refresh=True)
        for viewer in self._viewers.get(topic, ()):
            viewer.offer(topic, text, instead)

    def _show_later(self, topic: str, keys: set[Key]) -> None:
        self._faults[topic] = faults = self._faults.get(topic, 0) + 1
        if faults >= FAULTS:
            for viewer in self._viewers.get(topic, ()):
                viewer.offer(topic, _text(topic, "", refresh=True))
        self._later[topic] = keys
        pause = self.pace.pause * min(faults, LONGEST)
        asyncio.get_running_loop().call_later(pause, lambda: self.mark({topic: self._later.pop(topic)}))

    async def _repair(self) -> None:
        since = timezone.now()
        while True:
            await asyncio.sleep(self.pace.repair)
            now = timezone.now()
            if self._viewers:
                self.mark(await self._recent(since - timedelta(seconds=self.pace.overlap)))
            since = now

    async def _beat(self) -> None:
        for number in itertools.count():
            await asyncio.sleep(self.pace.beat)
            for viewer in set().union(*self._viewers.values()):
                viewer.offer("beat", json.dumps({"beat": number}))


def _text(topic: str, parts: str, refresh: bool) -> str:
    return json.dumps({"topic": topic, "parts": parts, "refresh": refresh})
