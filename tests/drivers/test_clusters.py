"""The raw disk in a qcow2 image, as QEMU's own tool sees it; and images that somebody made to do harm."""

from __future__ import annotations

import os
import random
import struct
import subprocess
import threading
from collections.abc import Iterator
from contextlib import nullcontext, suppress
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from providers_app.drivers import Extent, Refused, Source, clusters, zstd
from providers_app.drivers.blocks import FileSource
from providers_app.drivers.clusters import GuestContent
from providers_app.drivers.files import Folder

MIB = 1 << 20
SIZE = 3 * MIB + 7 * 512
VARIANTS = {
    "usual": "",
    "old": "-o compat=0.10",
    "small clusters": "-o cluster_size=512",
    "large clusters": "-o cluster_size=2M",
    "subclusters": "-o extended_l2=on,cluster_size=128k",
    "small subclusters": "-o extended_l2=on,cluster_size=16k",
    "preallocated": "-o preallocation=metadata",
    "compressed": "-c",
    "old, compressed": "-c -o compat=0.10,cluster_size=4k",
    "compressed by zstd": "-c -o compression_type=zstd",
    "compressed, large clusters": "-c -o cluster_size=1M",
    "compressed, subclusters": "-c -o extended_l2=on",
}
CHANGES = ("write -P 7 70000 1000", "write -z 1M 200k", "discard 1536k 128k", "write -P 9 2500k 90k")


def run(*words: str | Path) -> None:
    subprocess.run(words, check=True, capture_output=True)


def disk() -> bytes:
    """What a guest may have written: noise, text, zeros, and something in the last sector."""
    content = bytearray(SIZE)
    noise = random.Random(1)
    for start, length in ((0, 700), (200_000, 150_000), (MIB + 10, 400_000), (SIZE - 300, 300)):
        content[start : start + length] = noise.randbytes(length)
    content[2 * MIB : 2 * MIB + 500_000] = (b"the same words again and again " * 20_000)[:500_000]
    return bytes(content)


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("raw") / "disk.raw"
    path.write_bytes(disk())
    return path


@pytest.fixture(scope="module")
def made(raw: Path) -> bytes:
    """An ordinary image with small tables, to be damaged."""
    image = raw.parent / "small.qcow2"
    run("qemu-img", "convert", "-O", "qcow2", "-o", "cluster_size=4k", raw, image)
    run("qemu-io", "-f", "qcow2", *_words(CHANGES), image)
    return image.read_bytes()


def opened(path: Path) -> Source:
    with Folder(os.open(path.parent, os.O_RDONLY)) as folder:
        return GuestContent(FileSource(folder, path.name, lambda: nullcontext()))


def read_all(source: Source, step: int = 300_001) -> bytes:
    content = bytearray()
    while True:
        buffer = bytearray(b"\xaa" * step)
        count = source.read_into(len(content), memoryview(buffer))
        content += buffer[:count]
        if count < step:
            return bytes(content)


def covered(extents: Iterator[Extent], content: bytes) -> int:
    """Check that extents cover all and holes hold nothing; return the bytes of data."""
    at = data = 0
    kinds = []
    for extent in extents:
        assert extent.offset == at
        at += extent.length
        kinds.append(extent.data)
        data += extent.length if extent.data else 0
        assert extent.data or not any(content[extent.offset : at])
    assert at == len(content)
    assert all(one != other for one, other in pairwise(kinds))
    return data


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_guest_s_disk_is_what_qemu_img_converts(raw: Path, tmp_path: Path, variant: str) -> None:
    image, plain = tmp_path / "x.qcow2", tmp_path / "x.raw"
    run("qemu-img", "convert", "-O", "qcow2", *VARIANTS[variant].split(), raw, image)
    run("qemu-io", "-f", "qcow2", *_words(CHANGES), image)
    run("qemu-img", "convert", "-f", "qcow2", "-O", "raw", image, plain)
    expected = plain.read_bytes()
    source = opened(image)
    assert source.size == len(expected)
    assert read_all(source) == expected
    assert covered(source.extents(), expected) <= (SIZE if "large" in variant else 2 * MIB)
    source.close()


def _words(changes: tuple[str, ...]) -> list[str]:
    return [word for change in changes for word in ("-c", change)]


def test_a_snapshot_inside_does_not_change_what_the_guest_sees(raw: Path, tmp_path: Path) -> None:
    image = tmp_path / "x.qcow2"
    run("qemu-img", "convert", "-O", "qcow2", raw, image)
    run("qemu-img", "snapshot", "-c", "before", image)
    run("qemu-io", "-f", "qcow2", "-c", "write -P 5 0 64k", image)
    expected = bytearray(raw.read_bytes())
    expected[: 64 << 10] = b"\5" * (64 << 10)
    assert read_all(opened(image)) == bytes(expected)


def test_an_empty_image_of_terabytes_costs_nothing(tmp_path: Path) -> None:
    image = tmp_path / "x.qcow2"
    run("qemu-img", "create", "-f", "qcow2", image, "20T")
    source = opened(image)
    assert list(source.extents()) == [Extent(0, 20 << 40, data=False)]
    assert not any(read_all_at(source, (20 << 40) - MIB))


def read_all_at(source: Source, offset: int) -> bytes:
    buffer = bytearray(b"\xaa" * MIB)
    assert source.read_into(offset, memoryview(buffer)) == MIB
    return bytes(buffer)


def test_threads_read_at_once(
    raw: Path, made: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clusters, "_CACHE_BYTES", 0)
    (tmp_path / "x.qcow2").write_bytes(made)
    source = opened(tmp_path / "x.qcow2")
    expected = read_all(source)
    wrong: list[int] = []

    def read(step: int) -> None:
        if read_all(source, step) != expected:
            wrong.append(step)

    readers = [threading.Thread(target=read, args=(step,)) for step in (70_001, 90_001, 110_001, 130_001)]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()
    assert wrong == []


def test_an_image_in_an_image_is_refused(made: bytes, tmp_path: Path) -> None:
    """A guest may write the header of an image into its disk: no tool shall take that disk for one."""
    (tmp_path / "inner").write_bytes(made)
    run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", tmp_path / "inner", tmp_path / "x.qcow2")
    with pytest.raises(Refused, match="begins like a qcow2 image") as refused:
        opened(tmp_path / "x.qcow2")
    assert refused.value.code == "PREREQUISITE"


def test_without_the_library_zstd_is_refused(
    raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = tmp_path / "x.qcow2"
    run("qemu-img", "convert", "-c", "-O", "qcow2", "-o", "compression_type=zstd", raw, image)
    monkeypatch.setattr(zstd, "available", lambda: False)
    with pytest.raises(Refused, match="compressed with zstd") as refused:
        opened(image)
    assert refused.value.code == "PREREQUISITE"


def first_level(image: bytes) -> int:
    return int(struct.unpack_from(">Q", image, 40)[0])


def patched(image: bytes, *changes: tuple[int, int]) -> bytes:
    content = bytearray(image)
    for offset, word in changes:
        struct.pack_into(">Q", content, offset, word)
    return bytes(content)


def second_level(image: bytes) -> int:
    return int(struct.unpack_from(">Q", image, first_level(image))[0]) & 0x00FFFFFFFFFFFE00


def damage(image: bytes) -> dict[str, bytes]:
    one, two = first_level(image), second_level(image)
    mapped = (1 << 63) | (5 << 12)
    return {
        "a table beyond the end": patched(image, (one, 1 << 50)),
        "a table at an odd place": patched(image, (one, two + 512)),
        "one table for two places": patched(image, (one, two), (one + 8, two)),
        "data beyond the end": patched(image, (two, 1 << 50)),
        "data at an odd place": patched(image, (two, mapped + 512)),
        "the same data everywhere": patched(image, *((two + 8 * at, mapped) for at in range(512))),
        "compressed data beyond the end": patched(image, (two, (1 << 62) | (1 << 40))),
        "compressed data that is none": patched(image, (two, (1 << 62) | two)),
        "fewer tables than the size needs": patched(image, (24, 40 << 40)),
        "tables that end with the file": patched(image, (40, len(image) - 8)),
        "zeros that an old image can not have": patched(image, (4, (2 << 32)), (two, 1)),
    }


@pytest.mark.parametrize("kind", damage(bytes(1 << 20)))
def test_damaged_tables_are_refused(made: bytes, tmp_path: Path, kind: str) -> None:
    (tmp_path / "x.qcow2").write_bytes(damage(made)[kind])
    with pytest.raises(Refused, match="damaged tables") as refused:
        look(tmp_path / "x.qcow2")
    assert (refused.value.code, bool(refused.value.action)) == ("PREREQUISITE", True)


@pytest.mark.parametrize("kind", ["zlib", "zstd"])
def test_one_compressed_cluster_for_all_of_the_disk_is_refused(tmp_path: Path, kind: str) -> None:
    """A few tables would do for terabytes, none of them a hole."""
    image = tmp_path / "x.qcow2"
    run("qemu-img", "create", "-f", "qcow2", "-o", f"cluster_size=4k,compression_type={kind}", image, "64M")
    run("qemu-io", "-f", "qcow2", "-c", "write -c -P 65 0 4k", image)
    assert read_all_at(opened(image), 0)[:4097] == b"A" * 4096 + b"\0"
    made = image.read_bytes()
    made += bytes(-len(made) % 4096)
    entry = made[second_level(made) :][:8]
    tables = ((first_level(made) + 8 * at, len(made) + 4096 * at) for at in range(32))
    image.write_bytes(patched(made, *tables) + entry * 512 * 32)
    with pytest.raises(Refused, match="damaged tables"):
        list(opened(image).extents())


@pytest.mark.parametrize("kind", ["zlib", "zstd"])
def test_compressed_clusters_that_share_their_sectors_are_no_damage(tmp_path: Path, kind: str) -> None:
    plain, image = tmp_path / "x.raw", tmp_path / "x.qcow2"
    plain.write_bytes(b"A" * MIB)
    options = f"cluster_size=4k,compression_type={kind}"
    run("qemu-img", "convert", "-c", "-O", "qcow2", "-o", options, plain, image)
    assert image.stat().st_size < MIB // 4096 * 512
    assert list(opened(image).extents()) == [Extent(0, MIB)]


def look(path: Path) -> None:
    source = opened(path)
    try:
        list(source.extents())
        read_all(source, MIB)
    finally:
        source.close()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.tuples(st.integers(0, 9000), st.binary(min_size=1, max_size=12)), max_size=6), st.booleans()
)
def test_whatever_the_tables_say_it_is_read_or_refused(
    made: bytes, tmp_path: Path, changes: list[tuple[int, bytes]], first: bool
) -> None:
    """The size is left as it is, so that even what is not refused is read soon."""
    content = bytearray(made)
    base = first_level(made) if first else second_level(made)
    for offset, noise in changes:
        at = base + offset // 2
        content[at : at + len(noise)] = noise
    (tmp_path / "x.qcow2").write_bytes(content[: len(made)])
    with suppress(Refused):
        look(tmp_path / "x.qcow2")
