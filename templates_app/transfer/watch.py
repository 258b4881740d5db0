"""Calls to a host that have not come back."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from threading import get_ident
from typing import TypeVar

T = TypeVar("T")


class Watch:
    """Enter it around each call that may hang; any number of threads may be inside, each once."""

    def __init__(self) -> None:
        self._began: dict[int, float] = {}
        self._moved = time.monotonic()

    def __enter__(self) -> None:
        self._began[get_ident()] = time.monotonic()

    def __exit__(self, *exc: object) -> None:
        self._began.pop(get_ident(), None)
        self._moved = time.monotonic()

    def beat(self) -> None:
        """A call that is still under way gave a sign of life."""
        self._moved = time.monotonic()

    def alive(self, items: Iterable[T]) -> Iterator[T]:
        """Pass items on that one call brings one by one: each is a sign of life."""
        for item in items:
            self.beat()
            yield item

    def stuck_for(self) -> float:
        """Seconds since anything came back while a call is under way; 0 when none is."""
        began = list(self._began.values())
        return time.monotonic() - max(min(began), self._moved) if began else 0.0
