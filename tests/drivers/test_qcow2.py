"""Image headers, read by us before any tool opens an image."""

from __future__ import annotations

import os
import struct
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from providers_app.drivers import Refused, qcow2
from providers_app.drivers.files import Folder

Open = Callable[[bytes], int]


@pytest.fixture
def open_file(tmp_path: Path) -> Iterator[Open]:
    opened: list[int] = []

    def make(content: bytes) -> int:
        path = tmp_path / str(len(opened))
        path.write_bytes(content)
        opened.append(os.open(path, os.O_RDONLY))
        return opened[-1]

    yield make
    for fd in opened:
        os.close(fd)


def create(path: Path, *arguments: str) -> bytes:
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", *arguments, str(path), "64M"], check=True)
    return path.read_bytes()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """An image of QEMU's own tool, 64 MiB."""
    return create(tmp_path_factory.mktemp("qcow2") / "x.qcow2")


def patched(image: bytes, offset: int, form: str, *values: int) -> bytes:
    content = bytearray(image)
    struct.pack_into(form, content, offset, *values)
    return bytes(content)


def test_the_size_a_guest_sees_is_read(open_file: Open, made: bytes) -> None:
    assert qcow2.virtual_size(open_file(made), "qcow2") == 64 << 20
    assert qcow2.virtual_size(open_file(bytes(5000)), "raw") == 5000


@pytest.mark.parametrize(
    "option", ["compat=0.10", "extended_l2=on,cluster_size=128k", "compression_type=zstd", "cluster_size=512"]
)
def test_ordinary_variants_are_taken(open_file: Open, tmp_path: Path, option: str) -> None:
    assert qcow2.virtual_size(open_file(create(tmp_path / "x", "-o", option)), "qcow2") == 64 << 20


def test_an_image_on_a_backing_file_is_refused_and_named(
    open_file: Open, tmp_path: Path, made: bytes
) -> None:
    (tmp_path / "base").write_bytes(made)
    fd = open_file(create(tmp_path / "x", "-b", str(tmp_path / "base"), "-F", "qcow2"))
    assert qcow2.backing(fd) == str(tmp_path / "base")
    with pytest.raises(Refused, match="backing file"):
        qcow2.virtual_size(fd, "qcow2")


def test_an_image_with_its_data_elsewhere_is_refused(open_file: Open, tmp_path: Path) -> None:
    content = create(tmp_path / "x", "-o", f"data_file={tmp_path / 'data'},data_file_raw=on")
    with pytest.raises(Refused, match="another file"):
        qcow2.virtual_size(open_file(content), "qcow2")
    without_the_bit = patched(content, 72, ">Q", 0)
    with pytest.raises(Refused, match="another file"):
        qcow2.virtual_size(open_file(without_the_bit), "qcow2")


@pytest.mark.parametrize(
    ("offset", "form", "value", "why"),
    [
        (0, ">I", 0x12345678, "does not begin like one"),
        (4, ">I", 1, "version"),
        (4, ">I", 4, "version"),
        (16, ">I", 5000, "damaged header"),
        (20, ">I", 8, "damaged header"),
        (20, ">I", 31, "damaged header"),
        (24, ">Q", (64 << 40) + 512, "larger than 64 TiB"),
        (24, ">Q", 2**64 - 512, "larger than 64 TiB"),
        (24, ">Q", 513, "damaged header"),
        (24, ">Q", 0, "damaged header"),
        (32, ">I", 1, "encrypted"),
        (32, ">I", 2, "encrypted"),
        (36, ">I", 2**31, "damaged header"),
        (40, ">Q", 2**60, "damaged header"),
        (72, ">Q", 1, "not closed properly"),
        (72, ">Q", 2, "marked as damaged"),
        (72, ">Q", 1 << 5, "features that are not known"),
        (72, ">Q", 1 << 63, "features that are not known"),
        (100, ">I", 2**31, "damaged header"),
        (100, ">I", 10, "damaged header"),
    ],
)
def test_headers_that_make_no_sense_are_refused(
    open_file: Open, made: bytes, offset: int, form: str, value: int, why: str
) -> None:
    with pytest.raises(Refused, match=why) as refused:
        qcow2.virtual_size(open_file(patched(made, offset, form, value)), "qcow2")
    assert refused.value.code == "PREREQUISITE"
    assert refused.value.action


def test_a_backing_name_beyond_the_end_is_refused(open_file: Open, made: bytes) -> None:
    with pytest.raises(Refused, match="damaged header"):
        qcow2.read_header(open_file(patched(made, 8, ">QI", 2**40, 100)))


@pytest.mark.parametrize(
    "head", [b"QFI\xfb\0\0\0\3", b"KDMV", b"vhdxfile", b"conectix", b"QED\0", b"LUKS\xba\xbe"]
)
def test_a_raw_image_that_begins_like_another_format_is_refused(open_file: Open, head: bytes) -> None:
    with pytest.raises(Refused, match="is named raw"):
        qcow2.virtual_size(open_file(head.ljust(4096, b"\0")), "raw")


@pytest.mark.parametrize("form", qcow2.FORMATS)
def test_an_empty_image_is_refused(open_file: Open, form: str) -> None:
    with pytest.raises(Refused, match="is empty"):
        qcow2.virtual_size(open_file(b""), form)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(min_size=1, max_size=300), st.integers(0, 120))
def test_whatever_a_header_holds_it_is_read_or_refused(
    open_file: Open, made: bytes, noise: bytes, at: int
) -> None:
    for content in (qcow2.MAGIC + noise, made[:at] + noise + made[at + len(noise) :]):
        fd = open_file(content)
        for look in (qcow2.backing, lambda fd: qcow2.virtual_size(fd, "qcow2")):
            with suppress(Refused):
                look(fd)


def test_an_overlay_inherits_its_size_and_names_its_base(tmp_path: Path, made: bytes) -> None:
    (tmp_path / "base.qcow2").write_bytes(made)
    with Folder(os.open(tmp_path, os.O_RDONLY)) as folder:
        qcow2.overlay(folder, "disk0.qcow2", "base.qcow2", "qcow2")
        fd = folder.open("disk0.qcow2")
        assert (qcow2.backing(fd), qcow2.read_header(fd).virtual_size) == ("base.qcow2", 64 << 20)
        os.close(fd)
        with pytest.raises(Refused, match="could not make"):
            qcow2.overlay(folder, "disk1.qcow2", "missing.qcow2", "qcow2")


def test_without_the_tool_there_are_no_linked_clones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert not qcow2.can_link()
    with Folder(os.open(tmp_path, os.O_RDONLY)) as folder, pytest.raises(Refused, match="qemu-img"):
        qcow2.overlay(folder, "disk0.qcow2", "base.qcow2", "qcow2")
