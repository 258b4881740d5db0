"""The contract, for every kind: a new image that the host fills from another one of its own."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from providers_app.drivers import Driver, DriverError, Image, NoSpace, Refused, Unreachable, files, mounts
from tests.drivers.benches import (
    IMAGE,
    NAME,
    SIZE,
    Bench,
    DirectoryBench,
    SimulatorBench,
    known_bytes,
)
from tests.drivers.copying import aligned, publish, read_all

NEXT, NEXT_NAME = replace(IMAGE, version=2, digest=""), "win11-v2-{digest12}.raw"
WHOLE = 3 << 20
RUNS = ((0, 70_000), (2 << 20, 5000), (WHOLE - 700, 700))


@pytest.fixture
def first(host: Driver) -> Image:
    return publish(host, known_bytes(1, WHOLE, RUNS), NAME, IMAGE, RUNS)


def test_a_copy_has_all_bytes_and_can_be_changed_and_published(
    bench: Bench, host: Driver, first: Image
) -> None:
    sink = host.stage(NEXT_NAME, WHOLE, NEXT)
    content = known_bytes(1, WHOLE, RUNS) if sink.copy_from(first.ref, lambda _: None) else bytes(WHOLE)
    assert read_all(sink, WHOLE) == content
    assert [image.name for image in host.survey().images] == [NAME]
    sink.write(1 << 20, aligned(b"changed"))
    sink.hole(0, 5000)
    image = sink.commit("win11-v2-ba9876543210.raw", NEXT)
    changed = bytes(5000) + content[5000 : 1 << 20] + b"changed" + content[(1 << 20) + 7 :]
    assert bench.path(image.ref).read_bytes() == changed
    assert bench.path(first.ref).read_bytes() == known_bytes(1, WHOLE, RUNS)
    assert bench.litter() == []


def test_a_disk_of_a_vm_is_copied_like_an_image(bench: Bench, host: Driver) -> None:
    ref = bench.add_vm("win", known_bytes())
    host.survey()
    sink = host.stage(NEXT_NAME, SIZE, NEXT)
    content = known_bytes() if sink.copy_from(ref, lambda _: None) else bytes(SIZE)
    assert read_all(sink, SIZE) == content
    sink.abort()
    assert bench.litter() == []


@pytest.mark.parametrize("size", [WHOLE - 512, WHOLE + 512])
def test_what_is_of_another_size_is_not_copied(host: Driver, first: Image, size: int) -> None:
    sink = host.stage(NEXT_NAME, size, NEXT)
    assert not sink.copy_from(first.ref, lambda _: None)
    assert read_all(sink, size) == bytes(size)
    sink.abort()


def test_what_is_not_there_is_not_copied(host: Driver) -> None:
    sink = host.stage(NEXT_NAME, WHOLE, NEXT)
    assert not sink.copy_from("images/none.raw", lambda _: None)
    assert read_all(sink, WHOLE) == bytes(WHOLE)
    sink.abort()


def test_a_copy_says_how_far_it_is_and_can_be_ended(host: Driver, first: Image) -> None:
    class Enough(Exception):
        pass

    told: list[int] = []

    def beat(copied: int) -> None:
        told.append(copied)
        raise Enough

    sink = host.stage(NEXT_NAME, WHOLE, NEXT)
    with suppress(Enough):  # a host that shares blocks, or is quick, has nothing to say
        sink.copy_from(first.ref, beat)
    assert all(0 <= copied <= WHOLE for copied in told)
    sink.abort()


# Hosts that are folders of this machine


def without(*calls: Callable[..., Any], number: int = errno.EOPNOTSUPP) -> Callable[..., Any]:
    """Be a file system that can not do these calls."""

    def do(call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        if call in calls:
            raise OSError(number, os.strerror(number))
        return call(*args, **kwargs)

    return do


def test_a_folder_copies_an_image_and_keeps_its_holes(folder_bench: Bench) -> None:
    host, content = folder_bench.connected(), known_bytes(1, WHOLE, RUNS)
    first = publish(host, content, NAME, IMAGE, RUNS)
    sink = host.stage(NEXT_NAME, WHOLE, NEXT)
    assert sink.copy_from(first.ref, lambda _: None)
    image = sink.commit("win11-v2-ba9876543210.raw", NEXT)
    assert folder_bench.path(image.ref).read_bytes() == content
    assert folder_bench.path(image.ref).stat().st_blocks * 512 < WHOLE // 2


@pytest.mark.parametrize("number", [errno.EOPNOTSUPP, errno.EXDEV, errno.EINVAL, errno.ENOSYS])
def test_a_file_system_that_can_not_copy_says_so(
    folder_bench: Bench, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    host = folder_bench.connected()
    first = publish(host, known_bytes(1, WHOLE, RUNS), NAME, IMAGE, RUNS)
    sink = host.stage(NEXT_NAME, WHOLE, NEXT)
    monkeypatch.setattr(files, "do", without(fcntl.ioctl, os.copy_file_range, number=number))
    assert not sink.copy_from(first.ref, lambda _: None)
    assert read_all(sink, WHOLE) == bytes(WHOLE)
    sink.abort()


def test_a_file_system_that_is_unable_in_the_middle_leaves_nothing(
    folder_bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = folder_bench.connected()
    first = publish(host, known_bytes(1, WHOLE, RUNS), NAME, IMAGE, RUNS)
    sink = host.stage(NEXT_NAME, WHOLE, NEXT)
    able = iter([True, False])

    def do(call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        if call is fcntl.ioctl or (call is os.copy_file_range and not next(able)):
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
        return call(*args, **kwargs)

    monkeypatch.setattr(files, "do", do)
    assert not sink.copy_from(first.ref, lambda _: None)
    assert read_all(sink, WHOLE) == bytes(WHOLE)
    sink.abort()


@pytest.mark.parametrize(
    ("mount", "copied"),
    [
        ("ext4 /dev/vda1 rw", True),
        ("cifs //server/share rw,vers=3.1.1", True),
        ("nfs4 server:/x rw,vers=4.2,hard", True),
        ("nfs4 server:/x rw,vers=4.1,hard", False),
        ("nfs server:/x rw,vers=3", False),
        ("fuse.sshfs server:/x rw", False),
        ("fuse.short", False),
    ],
)
def test_nothing_is_copied_that_would_cross_a_network_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mount: str, copied: bool
) -> None:
    bench = DirectoryBench(tmp_path)
    host = bench.connected()
    first = publish(host, known_bytes(1, WHOLE, RUNS), NAME, IMAGE, RUNS)
    device = os.stat(bench.folder).st_dev
    here = f"{os.major(device)}:{os.minor(device)}"
    (tmp_path / "mounts").write_text(f"22 1 0:1 / /proc rw - proc proc rw\n23 1 {here} / / rw,x - {mount}\n")
    monkeypatch.setattr(mounts, "MOUNTS", str(tmp_path / "mounts"))
    monkeypatch.setattr(files, "do", without(fcntl.ioctl))
    sink = host.stage(NEXT_NAME, WHOLE, NEXT)
    assert sink.copy_from(first.ref, lambda _: None) == copied
    sink.abort()
    bench.close()


def test_what_an_earlier_attempt_wrote_is_not_in_the_copy(folder_bench: Bench) -> None:
    host, content = folder_bench.connected(), known_bytes(1, WHOLE, RUNS)
    first = publish(host, content, NAME, IMAGE, RUNS)
    sink = host.stage(NEXT_NAME, WHOLE, NEXT)
    sink.write(1 << 20, aligned(b"torn" * 1024))
    sink.close()
    again = host.stage(NEXT_NAME, WHOLE, NEXT)
    assert again.copy_from(first.ref, lambda _: None)
    assert read_all(again, WHOLE) == content
    again.abort()


def test_a_folder_that_fills_up_while_it_copies_says_so(
    folder_bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = folder_bench.connected()
    first = publish(host, known_bytes(1, WHOLE, RUNS), NAME, IMAGE, RUNS)
    sink = host.stage(NEXT_NAME, WHOLE, NEXT)
    monkeypatch.setattr(files, "do", without(fcntl.ioctl, os.copy_file_range, number=errno.ENOSPC))
    with pytest.raises(NoSpace):
        sink.copy_from(first.ref, lambda _: None)
    monkeypatch.undo()
    sink.abort()


def test_links_and_what_lies_elsewhere_are_not_copied(tmp_path: Path) -> None:
    bench = DirectoryBench(tmp_path)
    host = bench.connected()
    (tmp_path / "outside.raw").write_bytes(bytes(WHOLE))
    (bench.folder / "images" / "link.raw").symlink_to(tmp_path / "outside.raw")
    sink = host.stage(NEXT_NAME, WHOLE, NEXT)
    with pytest.raises(Refused):
        sink.copy_from("images/link.raw", lambda _: None)
    for ref in ("../outside.raw", "images/../../outside.raw", "vms/../outside.raw", "/etc/passwd", ""):
        with suppress(DriverError):
            assert not sink.copy_from(ref, lambda _: None)
    assert read_all(sink, WHOLE) == bytes(WHOLE)
    sink.abort()
    bench.close()


@pytest.mark.parametrize(
    ("faults", "fault"),
    [("cut=4096", Unreachable), ("no_space=4096", NoSpace), ("refuse=copy", Refused)],
)
def test_a_simulator_copies_with_its_faults(tmp_path: Path, faults: str, fault: type[DriverError]) -> None:
    bench = SimulatorBench(tmp_path)
    host = bench.connected()
    first = publish(host, known_bytes(1, WHOLE, RUNS), NAME, IMAGE, RUNS)
    sink = host.stage(NEXT_NAME, WHOLE, NEXT)
    bench.switch(faults)
    with pytest.raises(fault):
        sink.copy_from(first.ref, lambda _: None)
    bench.switch("corrupt=5")
    again = sink.copy_from(first.ref, lambda _: None)
    content = bytearray(known_bytes(1, WHOLE, RUNS))
    content[5] ^= 0xFF
    assert (again, read_all(sink, WHOLE)) == (True, bytes(content))
    sink.abort()
    bench.close()
