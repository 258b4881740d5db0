"""Which leaves of a disk hold data, and which blocks of them a lane still lacks.

A block is the unit that is read, handed over and written (4 MiB), a leaf the unit that is hashed and proven.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence

from .extents import Run, gaps

BLOCK = 4 << 20
SAMPLES = 16


class DataMap:
    """Runs of leaves that hold data. ``size`` and ``leaf`` in bytes; everything outside the runs reads as zeros."""

    def __init__(self, runs: Sequence[Run], size: int, leaf: int) -> None:
        self.runs = runs
        self.size = size
        self.leaf = leaf
        self.leaves = -(-size // leaf)
        self.starts = [first for first, _ in runs]
        self.ranks: list[int] = []
        rank = 0
        for first, end in runs:
            self.ranks.append(rank)
            rank += end - first
        self.count = rank

    def rank(self, leaf: int) -> int:
        """How many data leaves come before this data leaf."""
        at = bisect_right(self.starts, leaf) - 1
        return self.ranks[at] + leaf - self.starts[at]

    def length(self, leaf: int) -> int:
        return min(self.leaf, self.size - leaf * self.leaf)

    def span(self, first: int, end: int) -> Run:
        """Bytes of a run of leaves, cut at the end of the disk."""
        return first * self.leaf, min(end * self.leaf, self.size)

    def clip(self, first: int, end: int) -> Iterator[Run]:
        """Data runs between two leaves."""
        at = max(0, bisect_right(self.starts, first) - 1)
        while at < len(self.runs) and self.runs[at][0] < end:
            start, stop = max(first, self.runs[at][0]), min(end, self.runs[at][1])
            if start < stop:
                yield start, stop
            at += 1

    def bytes_between(self, first: int, end: int) -> int:
        """Bytes of data between two leaves."""
        return sum(stop - start for start, stop in (self.span(*run) for run in self.clip(first, end)))

    def total(self) -> int:
        return self.bytes_between(0, self.leaves)

    def zero_samples(self) -> list[int]:
        """A few leaves outside the data: the last one of the disk, then the middles of the largest holes."""
        holes = sorted(gaps(self.runs, self.leaves), key=lambda hole: hole[0] - hole[1])
        samples = {(first + end) // 2 for first, end in holes[:SAMPLES]}
        if holes and max(end for _, end in holes) == self.leaves:
            samples.add(self.leaves - 1)
        return sorted(samples)


class Blocks:
    """Divides a disk into blocks and says which of them hold data."""

    def __init__(self, data: DataMap, block: int = BLOCK) -> None:
        self.data = data
        self.bytes = block
        self.per_block = block // data.leaf
        self.count = -(-data.leaves // self.per_block)

    def leaves(self, block: int) -> Run:
        first = block * self.per_block
        return first, min(first + self.per_block, self.data.leaves)

    def all_with_data(self) -> bytearray:
        """One byte for each block, 1 where it holds data: what a lane lacks at first."""
        lacking = bytearray(self.count)
        for first, end in self.data.runs:
            start, stop = first // self.per_block, (end - 1) // self.per_block + 1
            lacking[start:stop] = b"\x01" * (stop - start)
        return lacking

    def with_any(self, leaves: bytearray) -> bytearray:
        """One byte for each block, 1 where any of its leaves is marked."""
        lacking = bytearray(self.count)
        at = leaves.find(1)
        while at >= 0:
            block = at // self.per_block
            lacking[block] = 1
            at = leaves.find(1, (block + 1) * self.per_block)
        return lacking

    def cut(self, run: Run) -> Iterator[Run]:
        """A run of leaves in parts, none of which reaches into another block."""
        first, end = run
        while first < end:
            stop = min(end, (first // self.per_block + 1) * self.per_block)
            yield first, stop
            first = stop

    def whole(self, claims: Sequence[Run]) -> Iterator[int]:
        """Blocks that lie wholly within the claimed leaves."""
        for first, end in claims:
            start = -(-first // self.per_block)
            stop = self.count if end >= self.data.leaves else end // self.per_block
            yield from range(start, stop)
