"""Bytes of a volume, in and out.

A stream that was finished is the only proof that a host took what was sent. Nothing here uses sparse uploads: a hole
in one cuts the file and zeroes nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from providers_app.drivers.base import Unreachable

from .storage import Volume

SEND = 1 << 20
FIRST_SEND = 4 << 20
"""A daemon copies each message. glibc returns the memory of one that is larger than all before it to the kernel, and
from then on keeps as much (``M_MMAP_THRESHOLD`` in mallopt(3)). So one large message spares the daemon fetching, page
by page, what each of the thousands of smaller ones takes that follow, in either direction."""
RECEIVE = 256 << 10  # what one call brings at most; each sets aside as much as it asks for
SEGMENT = 64 << 20
_FIRST_STEP, _LONGEST_HOLE_STEP, _LONGEST_SKIP = 1 << 20, 64 << 20, 15 << 20
_SPARSE = 1  # VIR_STORAGE_VOL_DOWNLOAD_SPARSE_STREAM
_STOP_AT_HOLE = 1  # VIR_STREAM_RECV_STOP_AT_HOLE
_AT_HOLE = -3


def put(connection: Any, volume: Volume, offset: int, data: bytes | memoryview) -> None:
    """Write a run of bytes; on return the host has taken all of it."""
    run = _Upload(connection, volume)
    run.write(offset, memoryview(data))
    run.finish()


def get(connection: Any, volume: Volume, offset: int, view: memoryview) -> int:
    """Fill ``view``; return the bytes read, less only at the end of the volume."""
    return _Download(connection, volume, offset, len(view)).read(view)


class Downloads:
    """All that is being read back from one volume. Each thread has a stream of its own for what it expects to read."""

    def __init__(self, connection: Any, volume: Volume) -> None:
        self._connection, self._volume = connection, volume
        self._runs: dict[int, _Download] = {}

    def expect(self, offset: int, length: int) -> None:
        """Have one stream bring what the thread is going to read next, in order and in whatever pieces."""
        thread = threading.get_ident()
        if thread in self._runs:
            self._runs[thread].abort()
        self._runs[thread] = _Download(self._connection, self._volume, offset, length)

    def read(self, offset: int, view: memoryview) -> int:
        run = self._runs.get(threading.get_ident())
        if run is not None and run.at == offset and len(view) <= run.left:
            return run.read(view)
        return get(self._connection, self._volume, offset, view)

    def abort(self) -> None:
        for run in list(self._runs.values()):
            run.abort()


class _Download:
    """A run of bytes that is read in one stream, from its beginning to its end."""

    def __init__(self, connection: Any, volume: Volume, offset: int, length: int) -> None:
        self.at, self.left = offset, length
        self._connection, self._volume = connection, volume
        self._stream: Any = None

    def read(self, view: memoryview) -> int:
        """Fill ``view`` with what comes next; return the bytes read, less only at the end of the volume."""
        with self._volume.errors():
            try:
                if self._stream is None:
                    self._begin()
                done = self._receive(view)
                if done < len(view) or not self.left:
                    self._finish()
            except BaseException:
                self.abort()
                raise
        return done

    def _receive(self, view: memoryview) -> int:
        done = 0
        while done < len(view) and (part := self._stream.recv(min(RECEIVE, len(view) - done))):
            view[done : done + len(part)] = part
            done += len(part)
        self.at += done
        self.left -= done
        return done

    def _begin(self) -> None:
        self._stream = self._connection.newStream(0)
        with self._volume.opening:
            self._volume.raw.download(self._stream, self.at, self.left, 0)

    def _finish(self) -> None:
        self._stream.finish()
        self._stream, self.left = None, 0

    def abort(self) -> None:
        stream, self._stream, self.left = self._stream, None, 0
        if stream is not None:
            _give_up(stream)


class Uploads:
    """All that is being written to one volume. Each thread has a stream of its own, as long as it writes on."""

    def __init__(self, connection: Any, volume: Volume) -> None:
        self._connection, self._volume = connection, volume
        self._runs: dict[int, _Upload] = {}
        self._fault: BaseException | None = None

    def write(self, offset: int, data: memoryview) -> None:
        run = self._runs.setdefault(threading.get_ident(), _Upload(self._connection, self._volume))
        try:
            run.write(offset, data)
        except BaseException as error:
            self._fault = error
            raise

    def finish(self) -> None:
        """Return when the host has taken all that was written, by whatever thread; never after a fault."""
        for run in list(self._runs.values()):
            try:
                run.finish()
            except BaseException as error:
                self._fault = error
                raise
        if self._fault is not None:
            raise Unreachable("The host did not take all that was sent.", action="Retry.") from self._fault

    def abort(self) -> None:
        for run in list(self._runs.values()):
            run.abort()


class _Upload:
    """A run of bytes in the making; at most a segment in one stream."""

    def __init__(self, connection: Any, volume: Volume) -> None:
        self._connection, self._volume = connection, volume
        self._busy = threading.Lock()
        self._stream: Any = None
        self._at = self._sent = 0
        self._longest = FIRST_SEND

    def write(self, offset: int, data: memoryview) -> None:
        with self._busy, self._volume.errors():
            if self._stream is not None and (self._at != offset or self._sent >= SEGMENT):
                self._finish()
            if self._stream is None:
                self._begin(offset)
            try:
                self._send(data)
            except BaseException:
                self._abort()
                raise

    def finish(self) -> None:
        """Return when the host has taken all that was written before. Writing may go on meanwhile, in a new stream."""
        with self._busy:
            stream, self._stream = self._stream, None
        if stream is not None:
            with self._volume.errors():
                stream.finish()

    def abort(self) -> None:
        with self._busy:
            self._abort()

    def _begin(self, offset: int) -> None:
        stream = self._connection.newStream(0)
        with self._volume.opening:
            self._volume.raw.upload(stream, offset, 0, 0)
        self._stream, self._at, self._sent = stream, offset, 0

    def _send(self, data: memoryview) -> None:
        size = self._longest
        if len(data) > SEND:
            self._longest = SEND
        for start in range(0, len(data), size):
            part = bytes(data[start : start + size])
            while part:
                taken = self._stream.send(part)
                part = part[taken:]
                self._at += taken
                self._sent += taken

    def _finish(self) -> None:
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.finish()

    def _abort(self) -> None:
        stream, self._stream = self._stream, None
        if stream is not None:
            _give_up(stream)


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
    held = 0
    with volume.errors():
        stream = connection.newStream(0)
        try:
            with volume.opening:
                volume.raw.download(stream, offset, length, _SPARSE)
            while held < length:
                part = stream.recvFlags(min(SEND, length - held), _STOP_AT_HOLE)
                if part == _AT_HOLE:
                    return held, max(1, int(stream.recvHole(0)))
                if not part:
                    break
                held += len(part)
            return (held, 0) if held else (length, 0)
        finally:
            _give_up(stream)


def _give_up(stream: Any) -> None:
    import libvirt

    with suppress(libvirt.libvirtError):
        stream.abort()
