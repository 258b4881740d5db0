"""What turns one version of a disk into another."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from .digest import DIGEST, Table
from .extents import Run, marked, without

_WINDOW = 64


@dataclass(frozen=True)
class Changes:
    """``altered`` has one byte for each leaf of the disk: 1 where the new version holds data that the old one does
    not hold there. ``emptied`` are the leaves that only the old one has data in."""

    old: Table
    new: Table
    altered: bytearray
    emptied: list[Run]

    def kept(self) -> Iterator[Run]:
        """Leaves of data that both versions have in common."""
        return without(self.new.data.runs, list(marked(self.altered, 0, len(self.altered))))

    def kept_count(self) -> int:
        return self.new.data.count - self.altered.count(1)


def compare(old: Table, new: Table) -> Changes:
    """Compare two versions of equal size and leaf size by their digests."""
    altered = bytearray(new.data.leaves)
    for first in range(0, new.data.leaves, _WINDOW):
        end = min(first + _WINDOW, new.data.leaves)
        runs = list(new.data.clip(first, end))
        if runs and (runs != list(old.data.clip(first, end)) or _joined(old, runs) != _joined(new, runs)):
            _mark(altered, _digests(old, first, end), _digests(new, first, end))
    return Changes(old, new, altered, list(without(old.data.runs, new.data.runs)))


def _joined(table: Table, runs: list[Run]) -> bytes:
    """Digests from the first to the last of these runs, which are all data between the two."""
    start, last = table.data.rank(runs[0][0]), table.data.rank(runs[-1][1] - 1)
    return bytes(table.store[start * DIGEST : (last + 1) * DIGEST])


def _digests(table: Table, first: int, end: int) -> dict[int, bytes]:
    found = {}
    for run in table.data.clip(first, end):
        joined = table.expected(*run)
        for at, leaf in enumerate(range(*run)):
            found[leaf] = joined[at * DIGEST : (at + 1) * DIGEST]
    return found


def _mark(altered: bytearray, old: dict[int, bytes], new: dict[int, bytes]) -> None:
    for leaf, digest in new.items():
        if old.get(leaf) != digest:
            altered[leaf] = 1
