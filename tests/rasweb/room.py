"""A hub with its layer and browsers, and rows that are no database."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime

from rasweb import live
from rasweb.hub import Hub, Pace, Viewer


@dataclass
class Shown:
    parts: str
    refresh: bool = False


@dataclass
class Rows:
    """Stands for the database: renders what it is asked for, unless ``held`` up, and remembers how often."""

    asked: list[tuple[str, set]] = field(default_factory=list)
    lately: dict[str, set] = field(default_factory=dict)
    looks: list[datetime] = field(default_factory=list)
    faults: int = 0
    poisoned: str = ""
    free: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.free.set()

    @contextmanager
    def held(self) -> Iterator[None]:
        """Meanwhile a rendering that has begun does not end."""
        self.free.clear()
        try:
            yield
        finally:
            self.free.set()

    def frame(self, topic: str, keys: set) -> Shown:
        if topic == self.poisoned:
            raise ValueError("a row that nothing can show")
        if self.faults:
            self.faults -= 1
            raise OSError("the database is gone")
        self.asked.append((topic, keys))
        self.free.wait()
        return Shown(",".join(f"{kind}{pk}" for kind, pk in sorted(keys)))

    def recent(self, since: datetime) -> dict[str, set]:
        self.looks.append(since)
        found, self.lately = self.lately, {}
        return found


class Browser:
    """What one browser got. ``open`` is whether it takes anything at present."""

    def __init__(self) -> None:
        self.viewer: Viewer | None = None
        self.got: list[dict] = []
        self.open = asyncio.Event()
        self.open.set()

    async def send(self, message: dict) -> None:
        await self.open.wait()
        self.got.append(json.loads(message["text"]))

    @property
    def frames(self) -> list[dict]:
        return [frame for frame in self.got if "topic" in frame]


class Room:
    """A hub, its layer and its browsers."""

    def __init__(self, layer, pace: Pace) -> None:
        self.rows = Rows()
        self.layer = layer
        self.hub = Hub(layer, self.rows.frame, self.rows.recent, pace)
        self.tasks: list[asyncio.Task] = []

    async def browser(self, *topics: str) -> Browser:
        browser = Browser()
        browser.viewer = await self.hub.join(browser.send, topics)
        self.tasks.append(asyncio.create_task(browser.viewer.deliver()))
        await until(lambda: browser.got)
        return browser

    async def poke(self, *keys: tuple[str, int], topic: str = "templates") -> None:
        await self.layer.group_send(
            live.GROUP, {"type": "poke", "topics": {topic: [list(key) for key in keys]}}
        )

    async def close(self) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        await self.hub.close()


async def until(condition, seconds: float = 5.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.005)
