"""The bytes of local images, with and without direct input and output."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from providers_app.drivers import blocks, files
from tests.drivers.benches import RUNS, SIZE, known_bytes, write_sparse
from tests.drivers.copying import aligned

SMALL = 40_000


@pytest.fixture
def sparse(tmp_path: Path) -> Iterator[int]:
    """A file with known bytes, mostly holes."""
    write_sparse(tmp_path / "origin", known_bytes())
    fd = os.open(tmp_path / "origin", os.O_RDWR)
    yield fd
    os.close(fd)


@pytest.fixture
def empty(tmp_path: Path) -> Iterator[int]:
    fd = os.open(tmp_path / "target", os.O_RDWR | os.O_CREAT)
    yield fd
    os.close(fd)


@pytest.fixture(params=["direct", "buffered"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "buffered":
        monkeypatch.setattr(blocks, "_reopen_direct", lambda fd, mode: -1)
    return str(request.param)


def content_of(fd: int) -> bytes:
    return os.pread(fd, os.fstat(fd).st_size + 1, 0)


def refuse(*calls: object) -> Any:
    """Return a ``do`` for a file system that lacks some calls."""

    def do(call: Any, *args: Any, **kwargs: Any) -> Any:
        if call in calls:
            raise OSError(errno.EOPNOTSUPP, "not here")
        return call(*args, **kwargs)

    return do


WITHOUT = {
    "everything": (),
    "shared blocks": (fcntl.ioctl,),
    "copies in the kernel": (fcntl.ioctl, os.copy_file_range),
}


@pytest.mark.parametrize("without", WITHOUT)
def test_a_copy_has_equal_bytes_and_holes(
    sparse: int, empty: int, without: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "do", refuse(*WITHOUT[without]))
    blocks.copy(sparse, empty)
    assert content_of(empty) == known_bytes()
    assert os.fstat(empty).st_blocks * 512 < SIZE // 2


def test_a_file_without_a_map_is_one_run(sparse: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_map(fd: int, offset: int, how: int) -> int:
        raise OSError(errno.EINVAL, "no map here")

    monkeypatch.setattr(os, "lseek", no_map)
    assert list(blocks.data_runs(sparse, SIZE)) == [(0, SIZE)]
    assert [(e.offset, e.length, e.data) for e in blocks.extents(sparse, SIZE)] == [(0, SIZE, True)]


def test_an_empty_file_has_no_extents(empty: int) -> None:
    assert list(blocks.extents(empty, 0)) == []
    os.ftruncate(empty, SIZE)
    assert [(e.offset, e.length, e.data) for e in blocks.extents(empty, SIZE)] == [(0, SIZE, False)]


@pytest.mark.parametrize("can_punch", [True, False])
def test_a_punched_range_reads_as_zeros_and_nothing_else_does(
    sparse: int, can_punch: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not can_punch:
        monkeypatch.setattr(files, "do", refuse(blocks._fallocate))
    start, length = RUNS[1]
    blocks.punch(sparse, start + 100, length)
    expected = bytearray(known_bytes())
    expected[start + 100 : start + 100 + length] = bytes(length)
    assert content_of(sparse) == bytes(expected)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    writes=st.lists(
        st.tuples(st.integers(0, SMALL), st.integers(0, SMALL), st.booleans(), st.booleans()),
        min_size=1,
        max_size=6,
    )
)
def test_whatever_the_alignment_what_is_written_is_read(
    tmp_path: Path, way: str, writes: list[tuple[int, int, bool, bool]]
) -> None:
    expected = bytearray(SMALL)
    fd = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    os.ftruncate(fd, SMALL)
    file = blocks.BlockFile(fd, writable=True)
    try:
        for number, (offset, length, round_it, shift) in enumerate(writes, 1):
            at = offset & -4096 if round_it else offset
            data = bytes([number]) * min(length, SMALL - at)
            file.write(at, aligned(b"x" + data)[1:] if shift else aligned(data))
            expected[at : at + len(data)] = data
            for cached in (True, False):
                buffer = aligned(bytes(SMALL + 5000))
                assert file.read(0, buffer, cached=cached) == SMALL
                assert bytes(buffer[:SMALL]) == bytes(expected)
    finally:
        file.close()


def test_what_is_stored_is_read_past_the_memory_of_the_host(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "image").write_bytes(b"a" * 8192)
    asked: list[int] = []
    preadv = os.preadv

    def noted(fd: int, buffers: Any, offset: int) -> int:
        asked.append(fd)
        return preadv(fd, buffers, offset)

    with files.Folder(os.open(tmp_path, os.O_RDONLY)) as folder:
        source = blocks.FileSource(folder, "image", nullcontext)
    monkeypatch.setattr(os, "preadv", noted)
    buffer = aligned(bytes(8192))
    assert source.read_stored(0, buffer) == 8192
    assert bytes(buffer) == b"a" * 8192
    assert asked == [source._file._direct]
    source.close()


def test_a_file_system_that_refuses_direct_writes_is_written_through_the_cache(
    empty: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.ftruncate(empty, 8192)
    file = blocks.BlockFile(os.dup(empty), writable=True)
    direct, pwrite = file._direct, os.pwrite

    def picky(fd: int, data: memoryview, offset: int) -> int:
        if fd == direct:
            raise OSError(errno.EINVAL, "not aligned for me")
        return pwrite(fd, data, offset)

    monkeypatch.setattr(os, "pwrite", picky)
    file.write(0, aligned(b"a" * 8192))
    file.close()
    assert content_of(empty) == b"a" * 8192


def test_closing_a_file_twice_is_safe(empty: int) -> None:
    file = blocks.BlockFile(os.dup(empty))
    file.close()
    file.close()
