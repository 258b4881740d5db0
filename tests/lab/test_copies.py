"""Images that a host fills by itself, while it does, when nobody waits for it any more, and what others see of them."""

from __future__ import annotations

import subprocess
from dataclasses import replace

import pytest

from providers_app.drivers import CloneSpec, Definition, Driver, DriverError, Unreachable
from providers_app.drivers.libvirt import storage
from tests.drivers.benches import GUEST, IMAGE, NAME, known_bytes
from tests.drivers.copying import publish, read_all
from tests.lab.bench import LibvirtBench
from tests.product import wait_for

MIB = 1 << 20
SIZE = 4 * MIB
RUNS = ((0, 100_000), (SIZE - 5000, 5000))
NEXT, NEXT_NAME = replace(IMAGE, version=2), "win11-v2-ba9876543210.raw"
SETTLED_SECONDS = 30.0


class GivenUp(Exception):
    """What a beat raises when the copy is not wanted any more."""


def give_up(_done: int) -> None:
    raise GivenUp


def staged_beginnings(bench: LibvirtBench, host: Driver) -> list[bytes]:
    return [bench.path(each.ref).read_bytes()[: 64 << 10] for each in host.survey().staged]


def test_nobody_sees_a_disk_in_a_copy_before_it_is_published(bench: LibvirtBench) -> None:
    host, content = bench.connected(), known_bytes(1, SIZE, RUNS)
    first = publish(host, content, NAME, IMAGE, RUNS)
    sink = host.stage(NEXT_NAME, SIZE, NEXT)
    assert sink.copy_from(first.ref, lambda _: None)
    assert staged_beginnings(bench, host) == [bytes(64 << 10)]
    sink.close()
    again = host.stage(NEXT_NAME, SIZE, NEXT)
    assert (again.token, read_all(again, SIZE)) == (sink.token, content)
    image = again.commit(NEXT_NAME, NEXT)
    assert bench.path(image.ref).read_bytes() == content
    assert bench.path(image.ref).stat().st_blocks * 512 < SIZE // 2
    host.remove(NAME, IMAGE)
    assert bench.litter() == []


def test_a_qcow2_disk_is_copied_as_what_its_guest_sees(bench: LibvirtBench) -> None:
    disk = bench.folder / "installed.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", disk, "8M"], check=True)
    subprocess.run(
        ["qemu-io", "-f", "qcow2", "-c", "write -P 7 1M 2M", "-c", "write -P 9 0 512", disk],
        check=True,
        capture_output=True,
    )
    bench.define("installed", disk.name, form="qcow2")
    host = bench.connected()
    host.survey()
    seen = bytes([9]) * 512 + bytes(MIB - 512) + bytes([7]) * 2 * MIB + bytes(5 * MIB)
    sink = host.stage(NEXT_NAME, len(seen), NEXT)
    assert sink.copy_from(disk.name, lambda _: None)
    assert read_all(sink, len(seen)) == seen
    image = sink.commit(NEXT_NAME, NEXT)
    assert bench.path(image.ref).read_bytes() == seen


def test_a_host_that_copies_goes_on_with_all_else_and_what_was_given_up_is_swept(
    bench: LibvirtBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "PATIENCE_SECONDS", 0.1)
    host, content = bench.connected(), known_bytes(1, SIZE, RUNS)
    first = publish(host, content, NAME, IMAGE, RUNS)
    with bench.host.copies_held():
        sink = host.stage(NEXT_NAME, SIZE, NEXT)
        with pytest.raises(GivenUp):
            sink.copy_from(first.ref, give_up)
        with pytest.raises(DriverError) as working:
            sink.abort()
        assert working.value.code == "BUSY"
        sink.abort()

        spec = CloneSpec("desk", (first.ref,), ("raw",), True, Definition(32, 1), GUEST)
        host.clone(spec)
        host.recreate(spec)
        host.delete_guest("desk", GUEST)
        assert [image.name for image in host.survey().images] == [NAME]
        with pytest.raises(DriverError) as busy:
            host.remove(NAME, IMAGE)
        assert (busy.value.code, busy.value.permanent) == ("BUSY", False)
        again = host.stage(NEXT_NAME, SIZE, NEXT)
        assert again.token != sink.token
        assert read_all(again, SIZE) == bytes(SIZE)
        again.abort()
        assert [name[-5:] for name in bench.litter()] == [".mask", ".json"]

    wait_for(lambda: _idle(bench), SETTLED_SECONDS, "the end of the copy")
    third = host.stage(NEXT_NAME, SIZE, NEXT)
    assert third.token not in (sink.token, again.token)
    third.abort()
    assert bench.litter() == []
    assert bench.path(first.ref).read_bytes() == content


def test_a_host_that_dies_over_its_copy_begins_it_anew(bench: LibvirtBench) -> None:
    host, content = bench.connected(), known_bytes(1, SIZE, RUNS)
    first = publish(host, content, NAME, IMAGE, RUNS)
    sink = host.stage(NEXT_NAME, SIZE, NEXT)
    with bench.host.copies_held(), pytest.raises(Unreachable):
        sink.copy_from(first.ref, lambda _: bench.host.power_cut())
    sink.close()
    bench.host.boot()
    with bench.driver() as again:
        second = again.stage(NEXT_NAME, SIZE, NEXT)
        assert second.token != sink.token
        assert second.copy_from(first.ref, lambda _: None)
        assert bench.path(second.commit(NEXT_NAME, NEXT).ref).read_bytes() == content
        assert [image.name for image in again.survey().images] == [NAME, NEXT_NAME]
    assert bench.litter() == []


def _idle(bench: LibvirtBench) -> bool:
    import libvirt

    try:
        bench.libvirt.storagePoolLookupByName(bench.pool).refresh(0)
    except libvirt.libvirtError:
        return False
    return True


def test_a_disk_that_is_in_use_is_not_copied_and_leaves_an_empty_image(bench: LibvirtBench) -> None:
    disk = bench.add_vm("win", known_bytes(1, SIZE, RUNS), RUNS)
    host = bench.connected()
    host.survey()
    bench.libvirt.lookupByName("win").create()
    sink = host.stage(NEXT_NAME, SIZE, NEXT)
    assert not sink.copy_from(disk, lambda _: None)
    assert read_all(sink, SIZE) == bytes(SIZE)
    sink.abort()
    assert bench.litter() == []
