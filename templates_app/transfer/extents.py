"""Data and holes: runs of leaves. A run is a pair (first, end), ``end`` not included; lists of runs are sorted
and disjoint."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from .ports import Extent

Run = tuple[int, int]

PAGE = 4096
LONGEST_VIEW = 1 << 20
_ZEROS = bytes(LONGEST_VIEW)
_PROBE = bytes(64)


def data_runs(extents: Iterable[Extent], size: int, leaf: int) -> list[Run]:
    """Find leaves that may hold data. What a source does not clearly call a hole counts as data."""
    return merged(_data_leaves(extents, size, leaf))


def _data_leaves(extents: Iterable[Extent], size: int, leaf: int) -> Iterator[Run]:
    position = 0
    for extent in extents:
        start, end = extent.offset, extent.offset + extent.length
        if start > position:
            yield position // leaf, _up(min(start, size), leaf)
        if extent.data and end > start:
            yield max(0, start) // leaf, _up(min(end, size), leaf)
        position = max(position, end)
    if position < size:
        yield position // leaf, _up(size, leaf)


def _up(value: int, unit: int) -> int:
    return -(-value // unit)


def merged(runs: Iterable[Run]) -> list[Run]:
    """Sort runs, join those that touch or overlap, drop empty ones."""
    result: list[Run] = []
    for first, end in sorted(run for run in runs if run[1] > run[0]):
        if result and first <= result[-1][1]:
            result[-1] = (result[-1][0], max(result[-1][1], end))
        else:
            result.append((first, end))
    return result


def gaps(runs: Iterable[Run], end: int) -> Iterator[Run]:
    """What ``runs`` leave out between 0 and ``end``."""
    position = 0
    for first, last in runs:
        if first > position:
            yield position, first
        position = last
    if position < end:
        yield position, end


def without(runs: Iterable[Run], others: Sequence[Run]) -> Iterator[Run]:
    """What of ``runs`` lies in none of ``others``."""
    at = 0
    for first, end in runs:
        while at < len(others) and others[at][1] <= first:
            at += 1
        position, ahead = first, at
        while ahead < len(others) and others[ahead][0] < end:
            if others[ahead][0] > position:
                yield position, others[ahead][0]
            position = others[ahead][1]
            ahead += 1
        if position < end:
            yield position, end


def marked(leaves: bytes | bytearray, first: int, end: int) -> Iterator[Run]:
    """Runs of ones between two leaves of a map that has one byte, 0 or 1, for each leaf."""
    start = leaves.find(1, first, end)
    while start >= 0:
        stop = leaves.find(0, start, end)
        yield start, end if stop < 0 else stop
        start = leaves.find(1, stop, end) if stop >= 0 else -1


def spread(runs: Iterable[Run], count: int, most: int, *, shift: float = 0.5) -> Iterator[int]:
    """At most ``most`` of the ``count`` leaves in ``runs``, evenly spread."""
    wanted = iter(
        [int((number + shift) * count / most) for number in range(most)] if count > most else range(count)
    )
    target, passed = next(wanted, None), 0
    for first, end in runs:
        while target is not None and target < passed + end - first:
            yield first + target - passed
            target = next(wanted, None)
        passed += end - first


def is_zero(view: memoryview) -> bool:
    """Tell whether all bytes are zero; at most ``LONGEST_VIEW``."""
    if view[: len(_PROBE)] != _PROBE[: len(view)]:
        return False
    return bytes(view) == (_ZEROS if len(view) == len(_ZEROS) else _ZEROS[: len(view)])


def trimmed(view: memoryview) -> Run:
    """Bytes of ``view`` that are left without the zero pages at both ends. ``view`` is not all zero."""
    start, end = 0, len(view)
    while start + PAGE < end and is_zero(view[start : start + PAGE]):
        start += PAGE
    while end - start > PAGE and is_zero(view[_down(end) : end]):
        end = _down(end)
    return start, end


def _down(end: int) -> int:
    return (end - 1) // PAGE * PAGE
