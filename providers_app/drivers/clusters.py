"""What a guest sees of a qcow2 image, read through its allocation map. Nothing is written, no tool is started.

An image may come from anybody. Whatever its tables say, only this file is read, no table twice for two places, and
never more memory is taken than for a few tables of the size that the format allows.
"""

from __future__ import annotations

import sys
import threading
import zlib
from array import array
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from . import qcow2, zstd
from .base import Extent, Source
from .blocks import alternating
from .errors import Refused
from .qcow2 import Header

HOLE = -1
_OFFSET = 0x00FFFFFFFFFFFE00
_COMPRESSED, _ZERO = 1 << 62, 1
_PLAIN = _OFFSET | _COMPRESSED | _ZERO
_SECTOR, _ENTRY = 512, 8
_SUBCLUSTERS = 32
_CACHE_BYTES, _FEWEST_TABLES = 8 << 20, 4
_TOGETHER, _APART = 4 << 20, 64 << 10
_ZLIB_WINDOW = -12  # raw deflate with the window of QEMU
_ZLIB_RATIO = 1032  # the best that deflate can do: 258 bytes of 2 bits
_ZSTD_FRAME, _ZSTD_BLOCK, _ZSTD_BLOCK_HOLDS = 6, 4, 128 << 10  # the shortest frame and block there are


@dataclass(frozen=True)
class Piece:
    """A run of a guest's disk. ``host`` is where its bytes are in the file, HOLE for zeros.

    With ``packed`` it is one whole cluster, compressed into at most so many bytes at ``host``.
    """

    offset: int
    length: int
    host: int = HOLE
    packed: int = 0

    @property
    def end(self) -> int:
        return self.offset + self.length

    def continues(self, other: Piece) -> bool:
        """Tell whether ``other`` follows this piece, in the guest's disk and in the file."""
        if self.packed or other.packed or self.end != other.offset:
            return False
        return other.host == (HOLE if self.host == HOLE else self.host + self.length)

    def within(self, begin: int, end: int) -> Piece:
        """Return the part of a piece between two offsets of the disk; a compressed cluster stays whole."""
        skipped = max(0, begin - self.offset)
        if self.packed or (not skipped and self.end <= end):
            return self
        host = self.host if self.host == HOLE else self.host + skipped
        return Piece(self.offset + skipped, min(self.end, end) - self.offset - skipped, host)


class GuestContent(Source):
    """The raw disk in a qcow2 image. ``origin`` reads the image's file; it is closed with this."""

    def __init__(self, origin: Source) -> None:
        self._origin = _File(origin)
        header = qcow2.inspect(self._origin.read, origin.size, "qcow2")
        if header.compression == qcow2.ZSTD and not zstd.available():
            raise qcow2.refused("is compressed with zstd, for which the library libzstd is needed here")
        self.size = header.virtual_size
        self._zstd = header.compression == qcow2.ZSTD
        self._cluster = 1 << header.cluster_bits
        self._least = _least_packed(self._cluster, self._zstd)
        self._tables = Tables(self._origin, header)
        first = bytearray(_SECTOR)
        self.read_into(0, memoryview(first))
        qcow2.check_raw(bytes(first), "holds a disk that")

    def extents(self) -> Iterator[Extent]:
        return alternating(_joined(self._data_runs()), self.size)

    def _data_runs(self) -> Iterator[tuple[int, int]]:
        """Runs that may hold data: mapped by the image, and no holes of its file."""
        there = _Runs((each.offset, each.length) for each in self._origin.source.extents() if each.data)
        mapped = 0
        for piece in self._tables.pieces(0, self.size):
            if piece.packed:
                # of its last sector only a byte has to be its own: the next one may begin there
                mapped += _ENTRY + max(self._least, piece.packed - _SECTOR + 1)
                yield piece.offset, min(piece.length, self.size - piece.offset)
            elif piece.host != HOLE:
                for start, length in there.within(piece.host, piece.host + piece.length):
                    mapped += length
                    yield piece.offset + start - piece.host, length
            if mapped > there.total:
                raise damaged()  # the same bytes are mapped to several places

    def read_into(self, offset: int, buffer: memoryview) -> int:
        end = min(offset + len(buffer), self.size)
        if end <= offset:
            return 0
        packed: list[Piece] = []
        for piece in self._tables.pieces(offset, end):
            if piece.packed:
                packed.append(piece)
                continue
            part = buffer[piece.offset - offset : piece.end - offset]
            if piece.host == HOLE:
                part[:] = bytes(len(part))
            else:
                self._origin.fill(piece.host, part)
        for batch in _batches(packed):
            self._unpack(batch, offset, buffer[: end - offset])
        return end - offset

    def _unpack(self, batch: list[Piece], offset: int, view: memoryview) -> None:
        """Read clusters that lie near each other at once, and put what is asked for of each into ``view``."""
        base = batch[0].host
        packed = self._origin.read(base, max(piece.host + piece.packed for piece in batch) - base)
        for piece in batch:
            content = self._unpacked(packed[piece.host - base : piece.host - base + piece.packed])
            begin, end = max(piece.offset, offset), min(piece.end, offset + len(view))
            view[begin - offset : end - offset] = content[begin - piece.offset : end - piece.offset]

    def _unpacked(self, packed: bytes) -> bytes:
        try:
            if self._zstd:
                return zstd.unpack(packed, self._cluster)
            content = zlib.decompressobj(_ZLIB_WINDOW).decompress(packed, self._cluster)
        except (zlib.error, ValueError):
            raise damaged() from None
        if len(content) != self._cluster:
            raise damaged()
        return content

    def stamp(self) -> str:
        return self._origin.source.stamp()

    def close(self) -> None:
        self._origin.source.close()


class Tables:
    """The two levels of tables that map a guest's disk to a qcow2 file. Thread-safe."""

    def __init__(self, origin: _File, header: Header) -> None:
        self._origin, self._bits, self._version = origin, header.cluster_bits, header.version
        self._cluster = 1 << header.cluster_bits
        self._words = 2 if header.extended else 1
        self._entries = self._cluster // (8 * self._words)
        self._reach = self._entries * self._cluster
        self._limit = -(-origin.size // self._cluster) * self._cluster
        self._first = self._first_level(header)
        self._cache: OrderedDict[int, array[int]] = OrderedDict()
        self._most = max(_FEWEST_TABLES, _CACHE_BYTES >> header.cluster_bits)
        self._lock = threading.Lock()

    def _first_level(self, header: Header) -> array[int]:
        needed = -(-header.virtual_size // self._reach)
        if needed > header.l1_entries or header.l1_at + needed * 8 > self._origin.size:
            raise damaged()
        found = array("Q", (each & _OFFSET for each in self._origin.words(header.l1_at, needed)))
        there = [each for each in found if each]
        if len(set(there)) != len(there):
            raise damaged()
        for each in there:
            if each % self._cluster or each + self._cluster > self._origin.size:
                raise damaged()
        return found

    def pieces(self, begin: int, end: int) -> Iterator[Piece]:
        """Cover a range of the disk, in order, in pieces as long as they can be."""
        last: Piece | None = None
        for whole in self._all(begin, end):
            piece = whole.within(begin, end)
            if last is not None and last.continues(piece):
                last = replace(last, length=last.length + piece.length)
                continue
            if last is not None:
                yield last
            last = piece
        if last is not None:
            yield last

    def _all(self, begin: int, end: int) -> Iterator[Piece]:
        """Yield the pieces that touch a range; the first and the last may reach out of it."""
        for number in range(begin // self._reach, -(-end // self._reach)):
            start = number * self._reach
            if not self._first[number]:
                yield Piece(start, self._reach)
                continue
            table = self._second_level(number)
            low = max(0, begin - start) >> self._bits
            high = min(self._entries, -(-(end - start) // self._cluster))
            while low < high:
                count = 1 if self._words == 2 else self._alike(table, low, high)
                yield from self._of_entry(table, low, start + low * self._cluster, count)
                low += count

    def _alike(self, table: array[int], entry: int, end: int) -> int:
        """Count the entries that go on as the one at ``entry`` does: most of a table, so it has to be quick."""
        word = table[entry] & _PLAIN
        step = self._cluster if word and not word & (_COMPRESSED | _ZERO) else 0
        if word and not step:
            return 1
        at = entry + 1
        while at < end:
            word += step
            if table[at] & _PLAIN != word:
                break
            at += 1
        return at - entry

    def _second_level(self, number: int) -> array[int]:
        with self._lock:
            if (table := self._cache.get(number)) is not None:
                self._cache.move_to_end(number)
                return table
        table = self._origin.words(self._first[number], self._entries * self._words)
        with self._lock:
            self._cache[number] = table
            while len(self._cache) > self._most:
                self._cache.popitem(last=False)
        return table

    def _of_entry(self, table: array[int], entry: int, offset: int, count: int) -> Iterator[Piece]:
        """Yield what ``count`` entries map, of which :meth:`_alike` said that they go on as the first does."""
        word = table[entry * self._words]
        if word & _COMPRESSED:
            yield self._compressed(word, offset)
            return
        host = word & _OFFSET
        last = host + (count - 1) * self._cluster if host else 0
        if host % self._cluster or last >= self._limit:
            raise damaged()
        if self._words == 2:
            yield from self._subclusters(host, table[entry * 2 + 1], offset)
        elif word & _ZERO:
            if self._version < 3:
                raise damaged()
            yield Piece(offset, count * self._cluster)
        else:
            yield Piece(offset, count * self._cluster, host or HOLE)

    def _subclusters(self, host: int, bitmap: int, offset: int) -> Iterator[Piece]:
        """The lower half of a bitmap tells which subclusters are there, the upper half which are zeros."""
        there, zeros = bitmap & 0xFFFFFFFF, bitmap >> 32
        if there & zeros or (there and not host):
            raise damaged()
        step = self._cluster // _SUBCLUSTERS
        for number in range(_SUBCLUSTERS):
            at = number * step
            yield Piece(offset + at, step, host + at if there >> number & 1 else HOLE)

    def _compressed(self, word: int, offset: int) -> Piece:
        shift = 62 - (self._bits - 8)
        host = word & ((1 << shift) - 1)
        sectors = ((word & (_COMPRESSED - 1)) >> shift) + 1
        if host >= self._origin.size:
            raise damaged()
        return Piece(offset, self._cluster, host, sectors * _SECTOR - host % _SECTOR)


class _File:
    """The bytes of the image's file; what lies behind its end reads as zeros."""

    def __init__(self, source: Source) -> None:
        self.source, self.size = source, source.size

    def fill(self, offset: int, view: memoryview) -> None:
        done = 0
        while done < len(view) and (count := self.source.read_into(offset + done, view[done:])):
            done += count
        view[done:] = bytes(len(view) - done)

    def read(self, offset: int, length: int) -> bytes:
        """Return bytes of the file, fewer at its end."""
        room = bytearray(max(0, min(length, self.size - offset)))
        self.fill(offset, memoryview(room))
        return bytes(room)

    def words(self, offset: int, count: int) -> array[int]:
        found = array("Q", self.read(offset, count * 8))
        if sys.byteorder == "little":
            found.byteswap()
        return found


class _Runs:
    """Sorted runs of data, asked for what lies between two offsets."""

    def __init__(self, runs: Iterable[tuple[int, int]]) -> None:
        self._runs = list(runs)
        self.total = sum(length for _, length in self._runs)
        self._starts = [start for start, _ in self._runs]

    def within(self, begin: int, end: int) -> Iterator[tuple[int, int]]:
        for at in range(max(0, bisect_right(self._starts, begin) - 1), len(self._runs)):
            start, length = self._runs[at]
            if start >= end:
                return
            low, high = max(start, begin), min(start + length, end)
            if low < high:
                yield low, high - low


def _least_packed(cluster: int, zstd_packed: bool) -> int:
    """Return how few bytes a compressed cluster can have, whatever is in it."""
    if zstd_packed:
        return _ZSTD_FRAME + _ZSTD_BLOCK * -(-cluster // _ZSTD_BLOCK_HOLDS)
    return -(-cluster // _ZLIB_RATIO)


def _joined(runs: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Make one of runs that touch."""
    begin = end = 0
    for start, length in runs:
        if start > end or end == begin:
            if end > begin:
                yield begin, end - begin
            begin = start
        end = start + length
    if end > begin:
        yield begin, end - begin


def _batches(packed: Iterable[Piece]) -> Iterator[list[Piece]]:
    """Divide compressed clusters into groups that lie near each other, each to be read at once."""
    batch: list[Piece] = []
    for piece in packed:
        if batch:
            gap = piece.host - batch[-1].host - batch[-1].packed
            whole = piece.host + piece.packed - batch[0].host
            if not -_SECTOR <= gap <= _APART or whole > _TOGETHER:
                yield batch
                batch = []
        batch.append(piece)
    if batch:
        yield batch


def damaged() -> Refused:
    return qcow2.refused("has damaged tables", "Check it (qemu-img check), or restore it.")
