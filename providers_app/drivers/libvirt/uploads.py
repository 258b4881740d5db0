"""Bytes on their way into a volume. A stream that was finished is the only proof that a host took what was sent."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any

from providers_app.drivers.errors import Unreachable

from . import native
from .storage import Volume

SEND = 1 << 20
FIRST_SEND = 4 << 20
"""A daemon copies each message. glibc returns the memory of one that is larger than all before it to the kernel, and
from then on keeps as much (``M_MMAP_THRESHOLD`` in mallopt(3)). So one large message spares the daemon fetching, page
by page, what each of the thousands of smaller ones takes that follow, in either direction."""
SEGMENT = 64 << 20
NAP_SECONDS = 0.002
QUIET_SECONDS = 1.0
_SPARSE = 1  # VIR_STORAGE_VOL_UPLOAD_SPARSE_STREAM


def put(connection: Any, volume: Volume, offset: int, data: bytes | memoryview) -> None:
    """Write a run of bytes; on return the host has taken all of it."""
    with closing(Uploads(connection, volume)) as uploads:
        uploads.write(offset, memoryview(data))
        uploads.finish()


def lengthen(connection: Any, volume: Volume, now: int, size: int) -> None:
    """Give a volume of ``now`` bytes its ``size`` back, which :class:`Uploads` took that broke."""
    with closing(Uploads(connection, volume, blank=size)) as uploads:
        uploads.lengthen(now)


class Uploads:
    """All that is written to one volume, in one stream as long as that goes on upwards.

    To begin a stream takes a host as long as half a megabyte does. So what is left out on the way is a hole within
    one, where that is safe: a hole cuts the file off where it ends. There are none but in a volume that was blank,
    beyond all that was ever written to it, and one more to the end of the volume gives the file its length back. A
    stream that breaks leaves it as short as it is: whoever takes it up has to ``lengthen`` it.

    A daemon answers a hole that it can not make (the disk is full) as if it had been asked a question. Whoever sends
    the next piece meanwhile takes that for the answer, and then the finish of the stream has none, or a wrong one. So a
    stream with holes begins with one, which is seen to cut the file off, and is finished only when the file has its
    length back, which is the last thing that a daemon does for it. After a fault it is not even given up: that would
    wait for an answer too.

    ``blank``: the bytes of a volume in which nothing was written yet; None for any other. ``aside``: the volume by
    another connection, as one whose stream broke may answer nothing any more. ``check_room`` raises when the host has
    no room left; it is asked when the file does not change its length any more.
    """

    def __init__(
        self,
        connection: Any,
        volume: Volume,
        *,
        blank: int | None = None,
        aside: Volume | None = None,
        check_room: Callable[[], None] = lambda: None,
    ) -> None:
        self._connection, self._volume, self._blank = connection, volume, blank
        self._aside, self._check_room = aside or volume, check_room
        self._busy = threading.Lock()
        self._stream: Any = None
        self._at = self._sent = self._end = 0
        self._holes = False
        self._longest = FIRST_SEND
        self._broken = False

    def write(self, offset: int, data: memoryview) -> None:
        with self._busy, self._volume.errors(), self._faults():
            if self._stream is not None and not self._reaches(offset):
                self._end_stream()
            if self._stream is None:
                self._begin_at(offset)
            self._send(data)

    def finish(self) -> None:
        """Return when the host has taken all that was written, by whatever thread; never after a fault.

        Others may write on meanwhile, in a new stream, but for one with holes: they might cut that off.
        """
        with self._busy, self._volume.errors(), self._faults():
            if self._holes:
                self._end_stream()
            stream, self._stream = self._stream, None
        if stream is not None:
            with self._volume.errors(), self._faults():
                stream.finish()

    def lengthen(self, now: int) -> None:
        """Make nothing but the hole after ``now``."""
        with self._busy, self._volume.errors(), self._faults():
            self._begin(now)
            self._holes = True
            self._end_stream()

    def close(self) -> None:
        """Give up what was not finished."""
        with self._busy:
            stream, self._stream = self._stream, None
            if stream is not None and not self.silenced:
                native.give_up(stream)

    @property
    def silenced(self) -> bool:
        """Whether the connection may answer nothing any more, not even that it is to be closed."""
        return self._holes and self._broken

    @contextmanager
    def _faults(self) -> Iterator[None]:
        if self._broken:
            raise Unreachable("The host did not take all that was sent.", action="Retry.")
        try:
            yield
        except BaseException:
            self._broken = True
            raise

    def _reaches(self, offset: int) -> bool:
        """Whether the stream can go on at an offset; a hole up to there is sent where it takes one."""
        if self._sent >= SEGMENT:
            return False
        if self._holes and offset > self._at == self._end:
            self._send_hole(offset)
        return offset == self._at

    def _begin_at(self, offset: int) -> None:
        if self._blank is None or offset <= self._end:
            self._begin(offset)
        else:
            self._begin(self._end)
            self._send_hole(offset)
            self._await_length(offset)

    def _begin(self, offset: int) -> None:
        stream = self._connection.newStream(0)
        with self._volume.opening:
            self._volume.raw.upload(stream, offset, 0, 0 if self._blank is None else _SPARSE)
        self._stream, self._at, self._sent = stream, offset, 0

    def _send_hole(self, end: int) -> None:
        self._stream.sendHole(end - self._at, 0)
        self._at, self._holes = end, True

    def _send(self, data: memoryview) -> None:
        size = self._longest
        if len(data) > SEND:
            self._longest = SEND
        while data:
            taken = native.send(self._stream, data[:size])
            data = data[taken:]
            self._at += taken
            self._sent += taken
        self._end = max(self._end, self._at)

    def _end_stream(self) -> None:
        if self._holes and self._blank is not None:
            if self._at < self._blank:
                self._send_hole(self._blank)
            self._await_length(self._blank)
        self._holes = False
        stream, self._stream = self._stream, None
        stream.finish()

    def _await_length(self, length: int) -> None:
        last, since = -1, time.monotonic()
        while (now := self._aside.length()) != length:
            if now != last:
                last, since = now, time.monotonic()
            elif time.monotonic() - since > QUIET_SECONDS:
                self._check_room()
                since = time.monotonic()
            time.sleep(NAP_SECONDS)
