"""Copying as the engine does it, in a few lines."""

from __future__ import annotations

import mmap
from collections.abc import Sequence
from contextlib import closing

from providers_app.drivers import Driver, Image, Mark, Sink, Source
from tests.drivers.benches import RUNS


def aligned(content: bytes) -> memoryview:
    """Return a writable buffer as the engine's are: at the beginning of a page."""
    buffer = memoryview(mmap.mmap(-1, max(1, len(content))))
    buffer[: len(content)] = content
    return buffer[: len(content)]


def fill(sink: Sink, content: bytes, runs: Sequence[tuple[int, int]] = RUNS) -> None:
    for offset, length in runs:
        sink.write(offset, aligned(content[offset : offset + length]))


def publish(
    host: Driver, content: bytes, name: str, mark: Mark, runs: Sequence[tuple[int, int]] = RUNS
) -> Image:
    with closing(host.stage(name, len(content), mark)) as sink:
        fill(sink, content, runs)
        sink.flush()
        return sink.commit(name, mark)


def read_all(origin: Source | Sink, size: int) -> bytes:
    return read_at(origin, 0, size)


def read_at(origin: Source | Sink, offset: int, length: int) -> bytes:
    buffer = aligned(bytes(length))
    count = origin.read_into(offset, buffer)
    return bytes(buffer[:count])
