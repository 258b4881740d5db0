"""The two file formats, held by files that were written once: what is stored today must be readable for ever."""

from __future__ import annotations

import os
import random
import tracemalloc
from collections.abc import Iterable
from pathlib import Path

import pytest
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st

from templates_app.transfer.digest import DIGEST, Table, leaf_digests, zero_digest
from templates_app.transfer.extents import merged
from templates_app.transfer.journal import Journal, Subject, claims
from templates_app.transfer.manifest import BadManifest, Manifest, scratch_store, write_manifest
from templates_app.transfer.plan import DataMap

GOLDEN = Path(__file__).parent / "golden"
LEAF = 4096
SUBJECT = Subject("token-1", 100 * LEAF + 1, LEAF)


def content() -> bytes:
    """Three leaves of data, two of zeros, one of data, one of zeros, and a short one of data."""
    made = random.Random(7)
    return (
        made.randbytes(3 * LEAF) + bytes(2 * LEAF) + made.randbytes(LEAF) + bytes(LEAF) + made.randbytes(100)
    )


def table_of(image: bytes, runs: list[tuple[int, int]], folder: Path) -> Table:
    data = DataMap(runs, len(image), LEAF)
    table = Table(data, scratch_store(folder, data.count * DIGEST), known=False)
    for first, end in runs:
        start, stop = data.span(first, end)
        assert table.settle(first, leaf_digests(memoryview(image)[start:stop], LEAF))
    return table


def digest_by_the_book(image: bytes) -> str:
    leaves = [image[start : start + LEAF] for start in range(0, len(image), LEAF)]
    digests = b"".join(blake3(leaf).digest() for leaf in leaves)
    return blake3(digests + len(image).to_bytes(8, "little")).hexdigest()


def test_a_manifest_is_written_as_it_always_was(tmp_path: Path) -> None:
    sealed = write_manifest(tmp_path, table_of(content(), [(0, 8)], tmp_path))
    golden = next(GOLDEN.glob("*.manifest"))
    assert Path(sealed.manifest).name == golden.name
    assert Path(sealed.manifest).read_bytes() == golden.read_bytes()
    assert (sealed.size, sealed.leaf_size, sealed.allocated) == (7 * LEAF + 100, LEAF, 4 * LEAF + 100)


def test_an_old_manifest_can_be_read() -> None:
    golden = next(GOLDEN.glob("*.manifest"))
    manifest = Manifest.open(golden)
    assert manifest.digest == digest_by_the_book(content()) == golden.stem
    assert (manifest.size, manifest.leaf_size, manifest.allocated) == (7 * LEAF + 100, LEAF, 4 * LEAF + 100)
    assert manifest.data.runs == [(0, 3), (5, 6), (7, 8)]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.booleans(), max_size=40), st.integers(0, LEAF - 1), st.lists(st.integers(0, 40)))
def test_the_digest_does_not_depend_on_how_holes_were_mapped(
    tmp_path_factory: pytest.TempPathFactory, solid: list[bool], tail: int, extra: list[int]
) -> None:
    folder = tmp_path_factory.mktemp("manifests")
    made = random.Random(len(solid))
    image = b"".join(made.randbytes(LEAF) if full else bytes(LEAF) for full in solid) + made.randbytes(tail)
    leaves = -(-len(image) // LEAF)
    exact = merged((leaf, leaf + 1) for leaf in range(leaves) if any(image[leaf * LEAF : (leaf + 1) * LEAF]))
    wider = merged([*exact, *((leaf, leaf + 1) for leaf in extra if leaf < leaves)])
    written = [write_manifest(folder, table_of(image, runs, folder)) for runs in (exact, wider)]
    assert written[0] == written[1]
    assert written[0].digest == digest_by_the_book(image)
    assert Manifest.open(written[0].manifest).data.runs == exact


def noise_table(leaves: int, zeros: Iterable[int], folder: Path, tail: int = LEAF) -> Table:
    """A large disk, of which only the digests are made up. ``tail`` are the bytes of its last leaf."""
    data = DataMap([(0, leaves)], (leaves - 1) * LEAF + tail, LEAF)
    store = scratch_store(folder, leaves * DIGEST)
    store[:] = random.Random(leaves).randbytes(leaves * DIGEST)
    for leaf in zeros:
        store[leaf * DIGEST : (leaf + 1) * DIGEST] = zero_digest(data.length(leaf))
    return Table(data, store, known=False)


def test_zeros_are_left_out_wherever_they_lie(tmp_path: Path) -> None:
    zeros = [0, 1, 77, 4095, 4096, 8191, 8193, 9999]
    table = noise_table(10_000, zeros, tmp_path, tail=100)
    sealed = write_manifest(tmp_path, table)
    manifest = Manifest.open(sealed.manifest)
    kept = [leaf for run in manifest.data.runs for leaf in range(*run)]
    assert kept == sorted({*range(10_000)} - {*zeros})
    assert bytes(manifest.digests) == b"".join(table.expected(leaf, leaf + 1) for leaf in kept)
    assert sealed.allocated == manifest.allocated == len(kept) * LEAF


def test_a_manifest_takes_no_more_memory_for_a_larger_disk(tmp_path: Path) -> None:
    peaks = []
    for leaves in (10_000, 200_000):
        table = noise_table(leaves, range(5, leaves, leaves // 500), tmp_path)
        tracemalloc.start()
        write_manifest(tmp_path, table)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.1 * peaks[0] < 1 << 20


@pytest.mark.parametrize("where", [0, 16, 20, 24, 32, 40, 48, 80, 96, 200, -1])
def test_any_damage_to_a_manifest_is_found(tmp_path: Path, where: int) -> None:
    damaged = bytearray(next(GOLDEN.glob("*.manifest")).read_bytes())
    damaged[where] ^= 1
    path = tmp_path / "damaged"
    path.write_bytes(damaged)
    with pytest.raises(BadManifest):
        Manifest.open(path)


@settings(deadline=None)
@given(
    st.integers(0, 287).filter(lambda at: at not in (28, 29)),  # a size that is merely large takes its time
    st.integers(1, 255),
)
def test_no_manifest_with_a_wrong_byte_is_taken(
    tmp_path_factory: pytest.TempPathFactory, where: int, flip: int
) -> None:
    damaged = bytearray(next(GOLDEN.glob("*.manifest")).read_bytes())
    damaged[where % len(damaged)] ^= flip
    path = tmp_path_factory.getbasetemp() / "any-damage"
    path.write_bytes(damaged)
    with pytest.raises(BadManifest):
        Manifest.open(path)


@given(
    st.lists(st.tuples(st.integers(0, 101), st.integers(0, 101)), max_size=8),
    st.lists(st.tuples(st.integers(0, 101), st.integers(0, 101)), max_size=8),
)
@settings(deadline=None)
def test_a_journal_gives_back_exactly_what_was_claimed(
    tmp_path_factory: pytest.TempPathFactory, begun: list[tuple[int, int]], added: list[tuple[int, int]]
) -> None:
    journal = Journal(str(tmp_path_factory.getbasetemp() / "any-journal"), SUBJECT)
    journal.begin(begun)
    journal.add(added)
    journal.close()
    assert claims(journal.path, SUBJECT) == merged([*begun, *added])


@pytest.mark.parametrize("length", [0, 10, 79, 150, 287])
def test_a_torn_manifest_is_found(tmp_path: Path, length: int) -> None:
    path = tmp_path / "torn"
    path.write_bytes(next(GOLDEN.glob("*.manifest")).read_bytes()[:length])
    with pytest.raises(BadManifest):
        Manifest.open(path)


def test_writing_a_manifest_leaves_nothing_else_behind(tmp_path: Path) -> None:
    sealed = write_manifest(tmp_path, table_of(content(), [(0, 8)], tmp_path))
    assert os.listdir(tmp_path) == [Path(sealed.manifest).name]


def test_learned_digests_are_compared_the_second_time(tmp_path: Path) -> None:
    table = table_of(content(), [(0, 8)], tmp_path)
    assert table.settle(0, leaf_digests(memoryview(content())[: 3 * LEAF], LEAF))
    assert not table.settle(0, leaf_digests(memoryview(bytes(3 * LEAF)), LEAF))


def test_a_journal_is_written_as_it_always_was(tmp_path: Path) -> None:
    journal = Journal(str(tmp_path / "journal"), SUBJECT)
    journal.begin([(0, 16)])
    journal.add([(16, 32), (48, 64)])
    journal.close()
    assert (tmp_path / "journal").read_bytes() == (GOLDEN / "journal").read_bytes()


def test_an_old_journal_can_be_read() -> None:
    assert claims(str(GOLDEN / "journal"), SUBJECT) == [(0, 32), (48, 64)]


@pytest.mark.parametrize(
    "other",
    [
        Subject("token-2", SUBJECT.size, LEAF),
        Subject("token-1", 1, LEAF),
        Subject("token-1", SUBJECT.size, 8192),
    ],
)
def test_a_journal_about_something_else_claims_nothing(other: Subject) -> None:
    assert claims(str(GOLDEN / "journal"), other) == []


@given(st.integers(0, 200), st.binary(max_size=30))
def test_a_garbled_journal_never_claims_what_was_not_written(
    tmp_path_factory: pytest.TempPathFactory, cut: int, garbage: bytes
) -> None:
    path = tmp_path_factory.mktemp("journal") / "journal"
    path.write_bytes((GOLDEN / "journal").read_bytes()[:cut] + garbage)
    claimed = {leaf for first, end in claims(str(path), SUBJECT) for leaf in range(first, end)}
    assert claimed <= {*range(32), *range(48, 64)}


def test_a_journal_that_can_not_be_written_costs_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    journal = Journal(str(tmp_path / "file" / "journal"), SUBJECT)
    journal.begin([])
    journal.add([(0, 16)])
    journal.delete()


def test_a_deleted_journal_is_gone(tmp_path: Path) -> None:
    journal = Journal(str(tmp_path / "journal"), SUBJECT)
    journal.begin([(0, 16)])
    journal.delete()
    assert os.listdir(tmp_path) == []
