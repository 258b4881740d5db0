from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from templates_app.transfer.extents import PAGE, data_runs, gaps, is_zero, merged, trimmed

from .filehost import Extent

LEAF = 4096
extents = st.lists(
    st.builds(Extent, st.integers(0, 20 * LEAF), st.integers(0, 6 * LEAF), st.booleans()), max_size=12
)


@given(extents, st.integers(0, 16 * LEAF))
def test_only_what_is_surely_a_hole_is_left_out(listed: list[Extent], size: int) -> None:
    covered = {leaf for first, end in data_runs(listed, size, LEAF) for leaf in range(first, end)}
    holes = set[int]()
    data = set[int]()
    for extent in listed:
        touched = set(range(extent.offset, min(size, extent.offset + extent.length), 512))
        (data if extent.data else holes).update(touched)
    for offset in range(0, size, 512):
        if offset in data:
            assert offset // LEAF in covered
    assert all(leaf < -(-size // LEAF) for leaf in covered)


def test_a_source_without_a_map_is_all_data() -> None:
    assert data_runs([], 10 * LEAF + 1, LEAF) == [(0, 11)]


def test_a_gap_in_the_map_counts_as_data() -> None:
    listed = [Extent(0, LEAF, False), Extent(3 * LEAF, LEAF, False)]
    assert data_runs(listed, 4 * LEAF, LEAF) == [(1, 3)]


def test_a_hole_within_a_leaf_does_not_make_the_leaf_a_hole() -> None:
    listed = [
        Extent(0, LEAF + 512, True),
        Extent(LEAF + 512, 2 * LEAF, False),
        Extent(3 * LEAF + 512, 10, True),
    ]
    assert data_runs(listed, 3 * LEAF + 522, LEAF) == [(0, 2), (3, 4)]


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50))))
def test_merged_runs_are_sorted_apart_and_cover_the_same(runs: list[tuple[int, int]]) -> None:
    result = merged(runs)
    assert {n for a, b in result for n in range(a, b)} == {n for a, b in runs for n in range(a, b)}
    assert all(a < b for a, b in result)
    assert all(before[1] < after[0] for before, after in pairwise(result))


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50))))
def test_gaps_are_the_rest(runs: list[tuple[int, int]]) -> None:
    parts = merged(runs)
    inside = {n for a, b in parts for n in range(a, b)}
    assert {n for a, b in gaps(parts, 50) for n in range(a, b)} == set(range(50)) - inside


@given(st.integers(0, 3 * PAGE), st.lists(st.integers(0, 3 * PAGE)))
def test_zeros_are_told_from_anything_else(length: int, marks: list[int]) -> None:
    content = bytearray(length)
    for mark in marks:
        if mark < length:
            content[mark] = 1
    assert is_zero(memoryview(content)) == (not any(content))


@given(st.integers(1, 9 * PAGE), st.integers(0, 9 * PAGE), st.integers(0, 9 * PAGE))
def test_trimming_loses_no_byte_and_keeps_pages_whole(length: int, one: int, other: int) -> None:
    content = bytearray(length)
    content[one % length] = content[other % length] = 1
    start, end = trimmed(memoryview(content))
    assert not any(content[:start])
    assert not any(content[end:])
    assert start % PAGE == 0
    assert end % PAGE == 0 or end == length
    assert (
        end - start
        <= (max(one % length, other % length) // PAGE - min(one % length, other % length) // PAGE + 1) * PAGE
    )
