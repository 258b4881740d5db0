"""Reading back: is what a host holds what it should hold?"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from .digest import Table, leaf_digests
from .extents import LONGEST_VIEW, Run, gaps, is_zero
from .faults import source_changed
from .plan import DataMap

ReadInto = Callable[[int, memoryview], int]

PIECE = LONGEST_VIEW
STRETCH = 4 << 20  # what one thread reads back before another has its turn
SPAN = 32 << 20  # and how far apart its ends are at most: a host that knows no holes may send all in between


def read_fully(read_into: ReadInto, offset: int, view: memoryview) -> bool:
    """Fill ``view``, however short the single reads are. False when the image ends before."""
    done = 0
    while done < len(view):
        count = read_into(offset + done, view[done:])
        if count <= 0:
            return False
        done += count
    return True


def read_source(read_into: ReadInto, offset: int, view: memoryview) -> None:
    """Fill ``view`` from the source; SOURCE_CHANGED when it is shorter than it was."""
    if not read_fully(read_into, offset, view):
        raise source_changed()


def pieces(run: Run, data: DataMap) -> Iterator[Run]:
    """Cut a run of leaves into what fits into one read-back buffer."""
    first, end = run
    step = max(1, PIECE // data.leaf)
    for start in range(first, end, step):
        yield start, min(start + step, end)


def stretches(runs: Iterable[Run], data: DataMap) -> Iterator[list[Run]]:
    """Cut runs into pieces, and gather as many as one thread reads back before another has its turn."""
    stretch: list[Run] = []
    leaves = 0
    for first, end in (piece for run in runs for piece in pieces(run, data)):
        far = stretch and (end - stretch[0][0]) * data.leaf > SPAN
        if far or leaves * data.leaf >= STRETCH:
            yield stretch
            stretch, leaves = [], 0
        stretch.append((first, end))
        leaves += end - first
    if stretch:
        yield stretch


def holds_data(read_into: ReadInto, table: Table, run: Run, buffer: memoryview) -> bool:
    """Whether these leaves, all of one data run and at most one piece, read back with the right digests."""
    start, stop = table.data.span(*run)
    view = buffer[: stop - start]
    if not read_fully(read_into, start, view):
        return False
    return b"".join(leaf_digests(view, table.data.leaf)) == table.expected(*run)


def holds_zeros(read_into: ReadInto, data: DataMap, run: Run, buffer: memoryview) -> bool:
    """Whether these leaves, at most one piece, read back as zeros."""
    start, stop = data.span(*run)
    view = buffer[: stop - start]
    return read_fully(read_into, start, view) and is_zero(view)


def holds(read_into: ReadInto, table: Table, run: Run, buffer: memoryview) -> bool:
    """Whether a run of leaves of any kind and length reads back as it should, zeros included."""
    inside = list(table.data.clip(*run))
    outside = [(run[0] + first, run[0] + end) for first, end in _gaps_within(inside, run)]
    upwards = sorted([*((part, True) for part in inside), *((part, False) for part in outside)])
    return all(
        holds_data(read_into, table, piece, buffer)
        if data
        else holds_zeros(read_into, table.data, piece, buffer)
        for part, data in upwards
        for piece in pieces(part, table.data)
    )


def differing(read_into: ReadInto, table: Table, run: Run, buffer: memoryview) -> list[int]:
    """Leaves of a run of any kind and length that do not read back as they should."""
    if holds(read_into, table, run, buffer):
        return []
    return [leaf for leaf in range(*run) if not holds(read_into, table, (leaf, leaf + 1), buffer)]


def _gaps_within(inside: list[Run], run: Run) -> Iterator[Run]:
    shifted = [(first - run[0], end - run[0]) for first, end in inside]
    return gaps(shifted, run[1] - run[0])
