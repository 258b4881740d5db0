"""BLAKE3 over leaves, and the digest of a whole disk over its leaves' digests."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from functools import cache
from itertools import chain

from blake3 import blake3

from .extents import Run, is_zero
from .plan import DataMap

DIGEST = 32
_CHUNK = 1 << 15
_WINDOW = 1 << 12  # leaves whose digests are copied at once


@cache
def zero_digest(length: int) -> bytes:
    """Digest of ``length`` zero bytes."""
    return blake3(bytes(length)).digest()


def leaf_digests(view: memoryview, leaf: int) -> list[bytes]:
    """Digest each leaf of ``view``; a zero leaf is recognised without hashing it."""
    return [_leaf_digest(view[start : start + leaf]) for start in range(0, len(view), leaf)]


def _leaf_digest(view: memoryview) -> bytes:
    return zero_digest(len(view)) if is_zero(view) else blake3(view).digest()


def disk_digest(data: DataMap, digests: memoryview) -> str:
    """Digest of a disk, in hex: BLAKE3 over the digests of all its leaves in order, then its size (64 bit, little
    endian). Leaves outside ``data`` are zero; ``digests`` are those of the leaves inside."""
    hasher = blake3()
    for chunk in _chunks(data, digests):
        hasher.update(chunk)
    hasher.update(data.size.to_bytes(8, "little"))
    return hasher.hexdigest()


def _chunks(data: DataMap, digests: memoryview) -> Iterator[bytes | memoryview]:
    position = 0
    for (first, end), rank in zip(data.runs, data.ranks, strict=True):
        yield from _zero_chunks(data, position, first)
        yield digests[rank * DIGEST : (rank + end - first) * DIGEST]
        position = end
    yield from _zero_chunks(data, position, data.leaves)


def _zero_chunks(data: DataMap, first: int, end: int) -> Iterator[bytes]:
    whole = min(end, data.size // data.leaf)
    zero = zero_digest(data.leaf)
    many = zero * min(_CHUNK, max(0, whole - first))
    while first < whole:
        count = min(_CHUNK, whole - first)
        yield many[: count * DIGEST]
        first += count
    if first < end:
        yield zero_digest(data.size % data.leaf)


class Table:
    """Digests of a disk's data leaves: known beforehand, or learned as they are read. Thread-safe.

    ``store`` holds 32 bytes for each data leaf, in order; while learning, all zero means not read yet.
    """

    def __init__(self, data: DataMap, store: memoryview, *, known: bool) -> None:
        self.data = data
        self.store = store
        self.known = known
        self._lock = threading.Lock()

    def expected(self, first: int, end: int) -> bytes:
        """Digests of the leaves of one run, joined."""
        rank = self.data.rank(first)
        return bytes(self.store[rank * DIGEST : (rank + end - first) * DIGEST])

    def settle(self, first: int, digests: Iterable[bytes]) -> bool:
        """Compare leaves that were read with what is known of them, or learn them. False = they differ."""
        found = b"".join(digests)
        start = self.data.rank(first) * DIGEST
        with self._lock:
            place = self.store[start : start + len(found)]
            if not self.known and bytes(place) == bytes(len(found)):
                place[:] = found
                return True
            return bytes(place) == found

    def solid(self) -> Iterator[tuple[Run, memoryview]]:
        """Runs of leaves that are not zero, each with its digests: what a manifest holds."""
        for (first, end), rank in zip(self.data.runs, self.data.ranks, strict=True):
            digests = self.store[rank * DIGEST : (rank + end - first) * DIGEST]
            start = first
            for leaf in chain(self._zeros(first, end, digests), (end,)):
                if leaf > start:
                    yield (start, leaf), digests[(start - first) * DIGEST : (leaf - first) * DIGEST]
                start = leaf + 1

    def _zeros(self, first: int, end: int, digests: memoryview) -> Iterator[int]:
        """Leaves of a run that are zero after all. Looked for with as little memory as a window takes."""
        zero = zero_digest(self.data.leaf)
        for start in range(first, end, _WINDOW):
            window = bytes(digests[(start - first) * DIGEST : (start - first + _WINDOW) * DIGEST])
            at = window.find(zero)
            while at >= 0:
                if at % DIGEST == 0:
                    yield start + at // DIGEST
                at = window.find(zero, at + 1)
        short = self.data.length(end - 1)
        if short < self.data.leaf and digests[-DIGEST:] == zero_digest(short):
            yield end - 1
