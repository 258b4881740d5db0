"""Bytes of a volume on their way back, and what its host knows of holes in it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any

from providers_app.drivers.errors import Unreachable

from . import native
from .native import AT_HOLE, NOTHING_YET
from .storage import Volume

MESSAGE = 256 << 10
"""What a host sends at once at most."""
_PASSED_OVER = 512 << 10  # as much comes in the time that it takes to begin another stream
_SHORTEST_NAP, _LONGEST_NAP = 0.002, 0.008
_FIRST_STEP, _LONGEST_HOLE_STEP, _LONGEST_SKIP = 1 << 20, 64 << 20, 15 << 20
_SPARSE = 1  # VIR_STORAGE_VOL_DOWNLOAD_SPARSE_STREAM
_NONBLOCK = 1  # VIR_STREAM_NONBLOCK


def get(connection: Any, volume: Volume, offset: int, view: memoryview) -> int:
    """Fill ``view``; return the bytes read, less only at the end of the volume."""
    with closing(_Download(connection, volume, offset, len(view))) as download:
        return download.read(offset, view)


class Downloads:
    """All that is being read back from one volume. Each thread has a stream of its own for what it expects to read."""

    def __init__(self, connection: Any, volume: Volume) -> None:
        self._connection, self._volume = connection, volume
        self._runs: dict[int, _Download] = {}

    def expect(self, offset: int, length: int) -> None:
        """Have one stream bring what the thread is going to read next, upwards and in whatever pieces."""
        thread = threading.get_ident()
        if thread in self._runs:
            self._runs[thread].close()
        self._runs[thread] = _Download(self._connection, self._volume, offset, length)

    def read(self, offset: int, view: memoryview) -> int:
        run = self._runs.get(threading.get_ident())
        if run is not None and run.at <= offset and offset + len(view) <= run.end:
            return run.read(offset, view)
        return get(self._connection, self._volume, offset, view)

    def close(self) -> None:
        for run in list(self._runs.values()):
            run.close()


class _Download:
    """A range of bytes that is read upwards in one stream; what nobody asks for is passed over.

    Where more than a message is to come, the stream waits for none, we do: threads that wait in the library take turns
    at receiving for each other, and two of them need half as much again as one.
    """

    def __init__(self, connection: Any, volume: Volume, offset: int, length: int) -> None:
        self.at, self.end = offset, offset + length
        self._connection, self._volume = connection, volume
        self._stream: Any = None
        self._hole = 0

    def read(self, offset: int, view: memoryview) -> int:
        """Fill ``view``; return the bytes read, less only at the end of the volume."""
        with self._volume.errors():
            try:
                self._go_to(offset)
                done = self._fill(view)
                if done < len(view) or self.at == self.end:
                    self._finish()
            except BaseException:
                self.close()
                raise
        return done

    def close(self) -> None:
        stream, self._stream, self._hole = self._stream, None, 0
        if stream is not None:
            native.give_up(stream)

    def _go_to(self, offset: int) -> None:
        """Pass over what nobody asks for: a hole at once, much data by another stream that begins behind it."""
        while self._stream is not None and (gap := offset - self.at) > 0:
            if self._hole:
                self._advance(min(self._hole, gap))
            elif not self._take_in(gap):
                self.close()
        if self._stream is None:
            self._begin(offset)

    def _take_in(self, gap: int) -> bool:
        """Receive some of a gap. False at the end of the volume, and where another stream is sooner behind the gap."""
        count = self._next(memoryview(bytearray(min(gap, MESSAGE))))
        return bool(count) and (bool(self._hole) or gap - count <= _PASSED_OVER)

    def _begin(self, offset: int) -> None:
        length = self.end - offset
        long = length > MESSAGE
        self._stream = self._connection.newStream(_NONBLOCK if long else 0)
        with self._volume.opening:
            self._volume.raw.download(self._stream, offset, length, _SPARSE if long else 0)
        self.at = offset

    def _fill(self, view: memoryview) -> int:
        done = 0
        while done < len(view) and (count := self._next(view[done:])):
            done += count
        return done

    def _next(self, view: memoryview) -> int:
        """Fill the beginning of ``view`` with what comes next; return how much that is, 0 at the end of the volume."""
        nap = _SHORTEST_NAP
        while not self._hole:
            count = native.receive(self._stream, view)
            if count == AT_HOLE:
                self._hole = int(self._stream.recvHole(0))
            elif count == NOTHING_YET:
                self._wait(nap)
                nap = min(nap * 2, _LONGEST_NAP)
            else:
                self.at += count
                return count
        count = min(self._hole, len(view))
        view[:count] = bytes(count)
        self._advance(count)
        return count

    def _advance(self, count: int) -> None:
        self.at += count
        self._hole -= count

    def _wait(self, seconds: float) -> None:
        """A stream that waits for nothing does not notice either that its connection is lost."""
        time.sleep(seconds)
        if not self._connection.isAlive():
            raise Unreachable(f"The host {self._volume.where} closed the connection, or fell silent.")

    def _finish(self) -> None:
        stream, self._stream = self._stream, None
        stream.finish()


def data_runs(connection: Any, volume: Volume, begin: int, end: int) -> Iterator[tuple[int, int]]:
    """Yield (offset, length) of what may be data between two offsets; holes are told for certain.

    The host has no map of a volume, but in a sparse download it says how long a hole is. So it is asked here and
    there: in a hole with growing steps, in data with steps that skip what would be sent for nothing.
    """
    at, step, skip, run = begin, _FIRST_STEP, 0, begin
    while at < end:
        step = min(step, end - at)
        held, hole = _leading(connection, volume, at, step)
        if hole:
            if at + held > run:
                yield run, at + held - run
            at = run = at + held + hole
            step = min(step * 2, _LONGEST_HOLE_STEP) if not held else _FIRST_STEP
            skip = 0
        else:
            skip = min(skip * 2 or _FIRST_STEP, _LONGEST_SKIP)
            at, step = min(end, at + held + skip), _FIRST_STEP
    if end > run:
        yield run, end - run


def _leading(connection: Any, volume: Volume, offset: int, length: int) -> tuple[int, int]:
    """Return how many bytes of data come first in a range, and how long the hole after them is; 0 for none."""
    held, scratch = 0, memoryview(bytearray(min(length, MESSAGE)))
    with volume.errors():
        stream = connection.newStream(0)
        try:
            with volume.opening:
                volume.raw.download(stream, offset, length, _SPARSE)
            while held < length:
                count = native.receive(stream, scratch[: length - held])
                if count == AT_HOLE:
                    return held, max(1, int(stream.recvHole(0)))
                if not count:
                    break
                held += count
            return (held, 0) if held else (length, 0)
        finally:
            native.give_up(stream)
