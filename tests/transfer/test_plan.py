from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from templates_app.transfer.changes import compare
from templates_app.transfer.digest import Table, leaf_digests
from templates_app.transfer.extents import marked, merged, without
from templates_app.transfer.plan import Blocks, DataMap
from templates_app.transfer.verify import SPAN, STRETCH, stretches

LEAF, BLOCK = 4096, 4 * 4096


@st.composite
def maps(draw: st.DrawFn) -> DataMap:
    size = draw(st.integers(0, 60 * LEAF))
    leaves = -(-size // LEAF)
    runs = draw(st.lists(st.tuples(st.integers(0, leaves), st.integers(0, leaves))))
    return DataMap(merged(runs), size, LEAF)


def leaves_of(data: DataMap) -> list[int]:
    return [leaf for first, end in data.runs for leaf in range(first, end)]


@given(maps())
def test_ranks_count_the_data_before_a_leaf(data: DataMap) -> None:
    assert [data.rank(leaf) for leaf in leaves_of(data)] == list(range(data.count))


@given(maps(), st.integers(0, 70), st.integers(0, 70))
def test_clipped_runs_are_the_data_between_two_leaves(data: DataMap, first: int, end: int) -> None:
    clipped = [leaf for start, stop in data.clip(first, end) for leaf in range(start, stop)]
    assert clipped == [leaf for leaf in leaves_of(data) if first <= leaf < end]
    assert data.bytes_between(first, end) == sum(data.length(leaf) for leaf in clipped)


@given(maps())
def test_a_block_is_lacking_exactly_when_it_holds_data(data: DataMap) -> None:
    blocks = Blocks(data, BLOCK)
    assert [bool(flag) for flag in blocks.all_with_data()] == [
        bool(list(data.clip(*blocks.leaves(block)))) for block in range(blocks.count)
    ]


@given(maps(), st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60))))
def test_only_blocks_that_are_claimed_whole_count_as_claimed(
    data: DataMap, runs: list[tuple[int, int]]
) -> None:
    blocks = Blocks(data, BLOCK)
    claimed = merged((first, min(end, data.leaves)) for first, end in runs)
    inside = {leaf for first, end in claimed for leaf in range(first, end)}
    assert list(blocks.whole(claimed)) == [
        block for block in range(blocks.count) if set(range(*blocks.leaves(block))) <= inside
    ]


@given(maps(), maps())
def test_what_is_left_without_others_is_exactly_that(one: DataMap, other: DataMap) -> None:
    left = {leaf for first, end in without(one.runs, other.runs) for leaf in range(first, end)}
    assert left == set(leaves_of(one)) - set(leaves_of(other))


@given(st.lists(st.integers(0, 1), max_size=60), st.integers(0, 60), st.integers(0, 60))
def test_marked_runs_are_the_ones_between_two_leaves(marks: list[int], first: int, end: int) -> None:
    end = min(end, len(marks))
    runs = list(marked(bytearray(marks), first, end))
    assert [leaf for run in runs for leaf in range(*run)] == [at for at in range(first, end) if marks[at]]
    assert merged(runs) == runs


@given(maps())
def test_parts_of_a_run_cover_it_and_stay_in_one_block_each(data: DataMap) -> None:
    blocks = Blocks(data, BLOCK)
    for run in data.runs:
        parts = list(blocks.cut(run))
        assert merged(parts) == [run]
        assert all(first // blocks.per_block == (end - 1) // blocks.per_block for first, end in parts)


@st.composite
def versions(draw: st.DrawFn) -> tuple[bytes, bytes]:
    """Two contents of equal, odd size: a few kinds of leaves, so that many are equal and many are zero."""
    leaf = st.sampled_from([bytes(LEAF), b"a" * LEAF, b"b" * LEAF, b"a" + bytes(LEAF - 1)])
    one = draw(st.lists(leaf, max_size=90))
    other = [draw(leaf) if draw(st.integers(0, 9)) == 0 else same for same in one]
    cut = draw(st.integers(0, LEAF - 1)) if one else 0
    size = len(one) * LEAF - cut
    return b"".join(one)[:size], b"".join(other)[:size]


def table_of(content: bytes) -> Table:
    digests = leaf_digests(memoryview(content), LEAF)
    zero = [not any(content[start : start + LEAF]) for start in range(0, len(content), LEAF)]
    runs = merged((leaf, leaf + 1) for leaf, hollow in enumerate(zero) if not hollow)
    data = DataMap(runs, len(content), LEAF)
    store = b"".join(digests[leaf] for leaf in leaves_of(data))
    return Table(data, memoryview(store), known=True)


@settings(deadline=None)
@given(versions())
def test_changes_turn_one_version_into_the_other(pair: tuple[bytes, bytes]) -> None:
    old, new = pair
    changes = compare(table_of(old), table_of(new))
    made = bytearray(old)
    for first, end in changes.emptied:
        made[first * LEAF : end * LEAF] = bytes(len(made[first * LEAF : end * LEAF]))
    for leaf, altered in enumerate(changes.altered):
        start = leaf * LEAF
        if altered:
            assert old[start : start + LEAF] != new[start : start + LEAF]  # nothing is sent that is there
            made[start : start + LEAF] = new[start : start + LEAF]
    assert made == new
    assert changes.kept_count() == sum(end - first for first, end in changes.kept())


@given(st.lists(st.tuples(st.integers(0, 100), st.integers(0, 100))))
def test_stretches_are_all_of_it_in_order_and_no_more_than_one_thread_should_have(
    ends: list[tuple[int, int]],
) -> None:
    leaf = 1 << 20
    runs = merged(ends)
    cut = list(stretches(runs, DataMap(runs, 100 * leaf, leaf)))
    assert [at for stretch in cut for first, end in stretch for at in range(first, end)] == [
        at for first, end in runs for at in range(first, end)
    ]
    for stretch in cut:
        assert sum(end - first for first, end in stretch) * leaf <= STRETCH
        assert (stretch[-1][1] - stretch[0][0]) * leaf <= SPAN


@given(maps())
def test_samples_of_holes_never_lie_in_data_and_reach_the_end(data: DataMap) -> None:
    samples = data.zero_samples()
    assert not set(samples) & set(leaves_of(data))
    assert all(0 <= leaf < data.leaves for leaf in samples)
    if data.leaves and data.leaves - 1 not in leaves_of(data):
        assert data.leaves - 1 in samples
