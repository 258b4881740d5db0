"""The contract, for every kind: reading, staging, resuming, publishing and removing images."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from functools import partial
from itertools import pairwise

import pytest

from providers_app.drivers import Driver, Image, Missing, Refused
from tests.drivers.benches import IMAGE, NAME, OTHERS, RUNS, SIZE, UNKNOWN, UNRESOLVED, Bench, known_bytes
from tests.drivers.copying import aligned, fill, publish, read_all, read_at


def test_a_source_gives_its_bytes_and_its_map(bench: Bench, host: Driver) -> None:
    content = known_bytes()
    source = host.open_source(bench.add_vm("win", content))
    extents = list(source.extents())
    assert source.size == SIZE
    assert read_all(source, SIZE) == content
    assert read_all(source, SIZE + 5000) == content
    assert [extents[0].offset, *(e.offset + e.length for e in extents)] == [
        0,
        *(e.offset for e in extents[1:]),
        SIZE,
    ]
    assert all(one.data != other.data for one, other in pairwise(extents))
    covered = bytearray(SIZE)
    for extent in extents:
        if extent.data:
            covered[extent.offset : extent.offset + extent.length] = content[extent.offset :][: extent.length]
    assert bytes(covered) == content
    assert sum(extent.length for extent in extents if extent.data) < SIZE // 2
    source.close()


@pytest.mark.parametrize(
    ("offset", "length"), [(0, 1), (4095, 2), (4096, 4096), (SIZE - 1, 1), (RUNS[1][0] + 7, 9000)]
)
def test_a_source_can_be_read_anywhere(bench: Bench, host: Driver, offset: int, length: int) -> None:
    content = known_bytes()
    source = host.open_source(bench.add_vm("win", content))
    for buffer in (aligned(bytes(length)), aligned(bytes(length + 1))[1:], memoryview(bytearray(length))):
        assert source.read_into(offset, buffer) == length
        assert bytes(buffer) == content[offset : offset + length]
    source.close()


def test_a_source_gives_what_is_expected_of_it_in_pieces_in_part_or_not_at_all(
    bench: Bench, host: Driver
) -> None:
    with closing(host.open_source(bench.add_vm("golden", known_bytes()))) as source:
        read = partial(read_at, source)
        source.expect(0, SIZE)
        pieces = [read(at, min(69_632, SIZE - at)) for at in range(0, SIZE, 69_632)]
        assert b"".join(pieces) == known_bytes()
        source.expect(4096, SIZE)
        assert read(RUNS[1][0], 4096) == known_bytes()[RUNS[1][0] :][:4096]
        assert read(4096, 4096) == known_bytes()[4096:8192]
        assert read(0, SIZE) == known_bytes()


def test_the_stamp_of_a_source_follows_its_content(bench: Bench, host: Driver) -> None:
    ref = bench.add_vm("win", known_bytes())
    source = host.open_source(ref)
    first = source.stamp()
    assert source.stamp() == first
    with bench.path(ref).open("r+b") as file:
        file.write(b"changed")
    os.utime(bench.path(ref), ns=(1, 1))
    assert source.stamp() != first
    bench.path(ref).unlink()
    with pytest.raises(Missing) as missing:
        source.stamp()
    assert missing.value.code == "SOURCE_MISSING"
    source.close()


def test_a_published_image_is_a_source_too(host: Driver, image: Image) -> None:
    source = host.open_source(image.ref)
    assert read_all(source, SIZE) == known_bytes()
    assert source.stamp() == image.stamp
    source.close()


def test_what_was_staged_is_published_with_equal_bytes_and_holes(bench: Bench, host: Driver) -> None:
    image = publish(host, known_bytes(), NAME, IMAGE)
    path = bench.path(image.ref)
    assert path.read_bytes() == known_bytes()
    assert path.stat().st_blocks * 512 < SIZE // 2
    assert (image.name, image.size, image.mark) == (NAME, SIZE, IMAGE)
    assert host.survey().images == (image,)
    assert bench.litter() == []


def test_a_fresh_sink_reads_as_zeros(host: Driver) -> None:
    sink = host.stage(NAME, SIZE, IMAGE)
    assert read_all(sink, SIZE) == bytes(SIZE)
    sink.abort()


def test_what_was_written_is_read_back(host: Driver) -> None:
    sink = host.stage(NAME, SIZE, IMAGE)
    fill(sink, known_bytes())
    sink.flush()
    assert read_all(sink, SIZE) == known_bytes()
    sink.abort()


def test_what_is_expected_may_be_read_in_pieces_in_part_or_not_at_all(host: Driver) -> None:
    sink = host.stage(NAME, SIZE, IMAGE)
    fill(sink, known_bytes())
    sink.flush()
    read = partial(read_at, sink)
    sink.expect(0, SIZE)
    pieces = [read(at, min(69_632, SIZE - at)) for at in range(0, SIZE, 69_632)]
    assert b"".join(pieces) == known_bytes()
    sink.expect(4096, SIZE - 4096)
    assert read(4096, 4096) == known_bytes()[4096:8192]
    assert read(0, 4096) == known_bytes()[:4096]
    assert read(RUNS[1][0], 4096) == known_bytes()[RUNS[1][0] :][:4096]
    sink.expect(0, SIZE)
    sink.expect(0, 4096)
    assert read(0, SIZE) == known_bytes()
    sink.abort()


def test_what_was_written_is_read_back_while_others_write(host: Driver) -> None:
    sink = host.stage(NAME, SIZE, IMAGE)
    fill(sink, known_bytes())
    sink.flush()
    part = aligned(bytes(65_536))

    def write(at: int) -> None:
        for _ in range(20):
            sink.write(at, part)
            sink.flush()

    def read() -> set[bytes]:
        buffer, seen = aligned(bytes(65_536)), set()
        for _ in range(40):
            sink.read_into(RUNS[1][0], buffer)
            seen.add(bytes(buffer))
        return seen

    with ThreadPoolExecutor() as threads:
        writers = [threads.submit(write, at) for at in (131_072, 262_144)]
        readers = [threads.submit(read) for _ in range(2)]
    assert [writer.result() for writer in writers] == [None, None]
    assert [reader.result() for reader in readers] == [{known_bytes()[RUNS[1][0] :][:65_536]}] * 2
    sink.abort()


@pytest.mark.parametrize("reserved", [False, True])
def test_a_hole_reads_as_zeros_whatever_was_written_there(host: Driver, reserved: bool) -> None:
    content = known_bytes(runs=((0, SIZE),))
    sink = host.stage(NAME, SIZE, IMAGE)
    if reserved:
        sink.reserve(0, SIZE)
    fill(sink, content, ((0, SIZE),))
    sink.flush()
    sink.hole(5000, 70_000)
    sink.hole(SIZE - 10, 10)
    sink.hole(SIZE - 10, 0)
    sink.flush()
    assert read_all(sink, SIZE) == content[:5000] + bytes(70_000) + content[75_000 : SIZE - 10] + bytes(10)
    sink.abort()


def test_nothing_is_written_outside_an_image(host: Driver) -> None:
    sink = host.stage(NAME, SIZE, IMAGE)
    for offset, length in ((SIZE, 1), (SIZE - 1, 2), (-1, 1)):
        with pytest.raises(ValueError, match="outside"):
            sink.write(offset, aligned(bytes(length)))
        with pytest.raises(ValueError, match="outside"):
            sink.hole(offset, length)
    sink.abort()


def test_what_is_staged_is_no_image_yet(host: Driver) -> None:
    sink = host.stage(NAME, SIZE, IMAGE)
    survey = host.survey()
    assert survey.images == ()
    assert [(staged.name, staged.size, staged.mark) for staged in survey.staged] == [(NAME, SIZE, IMAGE)]
    sink.abort()


def test_the_digest_may_be_known_only_at_the_end(host: Driver) -> None:
    sink = host.stage(UNRESOLVED, SIZE, UNKNOWN)
    fill(sink, known_bytes())
    assert [staged.name for staged in host.survey().staged] == [UNRESOLVED]
    image = sink.commit(NAME, IMAGE)
    assert (image.name, image.mark) == (NAME, IMAGE)
    assert host.survey().staged == ()


def test_an_image_is_published_under_the_name_it_was_staged_for(host: Driver) -> None:
    sink = host.stage(UNRESOLVED, SIZE, UNKNOWN)
    for other in ("other-v1-0123456789ab.raw", "win11-v1-0123.raw", "win11-v1-0123456789ab.qcow2"):
        with pytest.raises(ValueError, match="was not staged as"):
            sink.commit(other, IMAGE)
    sink.abort()


def test_an_attempt_that_was_let_go_is_taken_up_again(host: Driver) -> None:
    content = known_bytes()
    first = host.stage(NAME, SIZE, IMAGE)
    fill(first, content, RUNS[:2])
    first.flush()
    first.close()
    first.close()
    second = host.stage(NAME, SIZE, IMAGE)
    assert second.token == first.token
    fill(second, content, RUNS[2:])
    image = second.commit(NAME, IMAGE)
    source = host.open_source(image.ref)
    assert read_all(source, SIZE) == content
    source.close()


@pytest.mark.parametrize(
    ("name", "size", "mark"),
    [
        (NAME, SIZE + 1, IMAGE),
        (NAME, SIZE, replace(IMAGE, digest="e5" * 32)),
        (NAME, SIZE, replace(IMAGE, version=2)),
    ],
    ids=["other size", "other digest", "other version"],
)
def test_an_attempt_that_does_not_fit_is_begun_anew(
    bench: Bench, host: Driver, name: str, size: int, mark: object
) -> None:
    first = host.stage(NAME, SIZE, IMAGE)
    fill(first, known_bytes())
    first.close()
    second = host.stage(name, size, mark)  # type: ignore[arg-type]  # a Mark, from the table above
    assert second.token != first.token
    assert read_all(second, size) == bytes(size)
    assert len(host.survey().staged) == 1
    second.abort()
    assert bench.litter() == []


def test_an_attempt_of_others_is_left_alone(host: Driver) -> None:
    theirs = host.stage(NAME, SIZE, OTHERS)
    theirs.close()
    mine = host.stage(NAME, SIZE, IMAGE)
    assert mine.token != theirs.token
    mine.abort()
    assert [staged.mark for staged in host.survey().staged] == [OTHERS]
    host.remove(NAME, IMAGE)
    assert [staged.mark for staged in host.survey().staged] == [OTHERS]


def test_an_attempt_that_another_process_holds_is_left_alone(bench: Bench, host: Driver) -> None:
    held = bench.connected().stage(NAME, SIZE, IMAGE)
    fill(held, known_bytes())
    mine = host.stage(NAME, SIZE, IMAGE)
    assert mine.token != held.token
    with pytest.raises(Refused) as refused:
        host.remove(NAME, IMAGE)
    assert refused.value.code == "IN_USE"
    mine.abort()
    assert held.commit(NAME, IMAGE).mark == IMAGE


def test_an_abort_leaves_nothing_and_is_safe_twice(bench: Bench, host: Driver) -> None:
    before = bench.everything()
    sink = host.stage(NAME, SIZE, IMAGE)
    fill(sink, known_bytes())
    sink.abort()
    sink.abort()
    sink.close()
    assert bench.everything().keys() - before.keys() <= {".rasweb.lock", "lock"}
    assert host.survey().staged == ()


def test_an_abort_after_the_end_takes_nothing_away(host: Driver) -> None:
    sink = host.stage(NAME, SIZE, IMAGE)
    image = sink.commit(NAME, IMAGE)
    sink.abort()
    assert host.survey().images == (image,)


def test_publishing_again_gives_what_is_there(bench: Bench, host: Driver, image: Image) -> None:
    assert publish(host, known_bytes(), NAME, IMAGE) == image
    assert bench.litter() == []


def test_two_who_publish_the_same_get_the_same(bench: Bench, host: Driver) -> None:
    one, other = host.stage(NAME, SIZE, IMAGE), bench.connected().stage(NAME, SIZE, IMAGE)
    fill(one, known_bytes())
    fill(other, known_bytes())
    assert one.commit(NAME, IMAGE) == other.commit(NAME, IMAGE)
    assert bench.litter() == []


def test_a_foreign_image_of_our_name_is_a_conflict_and_untouched(bench: Bench, host: Driver) -> None:
    bench.add_foreign_image(NAME)
    before = bench.everything()
    with pytest.raises(Refused) as refused:
        host.stage(NAME, SIZE, IMAGE)
    assert refused.value.code == "PATH_CONFLICT"
    with pytest.raises(Refused) as refused:
        host.remove(NAME, IMAGE)
    assert refused.value.code == "NOT_OURS"
    assert {name: content for name, content in bench.everything().items() if name in before} == before


def test_what_is_left_of_an_image_that_was_deleted_by_hand_takes_no_name(
    bench: Bench, host: Driver, image: Image
) -> None:
    bench.path(image.ref).unlink()
    other = replace(IMAGE, owner="a template that was made anew")
    assert publish(host, known_bytes(), NAME, other).mark == other
    assert bench.litter() == []


def test_a_foreign_image_that_came_meanwhile_is_a_conflict_and_untouched(bench: Bench, host: Driver) -> None:
    sink = host.stage(NAME, SIZE, IMAGE)
    bench.add_foreign_image(NAME)
    with pytest.raises(Refused) as refused:
        sink.commit(NAME, IMAGE)
    assert refused.value.code == "PATH_CONFLICT"
    sink.abort()
    (foreign,) = host.survey().images
    assert (foreign.name, foreign.mark) == (NAME, None)
    assert bench.path(foreign.ref).read_bytes() == b"somebody else's"


def test_an_image_of_another_installation_is_not_ours(host: Driver) -> None:
    theirs = publish(host, known_bytes(), NAME, OTHERS)
    for mark in (IMAGE, replace(IMAGE, owner="template-2")):
        with pytest.raises(Refused) as refused:
            host.remove(NAME, mark, force=True)
        assert refused.value.code == "NOT_OURS"
    assert host.survey().images == (theirs,)


@pytest.mark.parametrize(
    "name",
    ["", ".hidden", "../up", "a/b", "a\0", "-dash", "x" * 200, "tab\t", "ünï", "dot.", "new\nline", "a{b}"],
)
def test_names_that_are_not_safe_are_refused(bench: Bench, host: Driver, name: str) -> None:
    before = bench.everything()
    for call in (lambda: host.stage(name, SIZE, IMAGE), lambda: host.remove(name, IMAGE)):
        with pytest.raises(Refused) as refused:
            call()
        assert refused.value.code == "PREREQUISITE"
    assert bench.everything() == before
