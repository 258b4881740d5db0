"""What can happen to a host while something is done on it: power, daemon, network, disk."""

from __future__ import annotations

import threading
import time
from array import array
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from providers_app.drivers import (
    CloneSpec,
    Definition,
    Driver,
    DriverError,
    Mark,
    NoSpace,
    Refused,
    Sink,
    Unreachable,
)
from providers_app.drivers.libvirt import connection
from tests.drivers.benches import GUEST, IMAGE, NAME
from tests.drivers.copying import aligned, read_all
from tests.lab.bench import LibvirtBench
from tests.lab.boot import boot_sector, hear
from tests.lab.hosts import Lab

MIB = 1 << 20
SIZE = 12 * MIB


def pattern(size: int = SIZE) -> bytes:
    return array("Q", range(size // 8)).tobytes()


def fill(sink: Sink, content: bytes, start: int = 0, end: int = SIZE) -> None:
    for at in range(start, end, MIB):
        sink.write(at, aligned(content[at : min(end, at + MIB)]))
    sink.flush()


def spec(host: Driver, name: str = "desk", *, linked: bool = True, version: int = 1) -> CloneSpec:
    (ref,) = [each.ref for each in host.survey().images if each.mark and each.mark.version == version]
    return CloneSpec(name, (ref,), ("raw",), linked, Definition(32, 1), replace(GUEST, owner=name))


def publish(host: Driver, content: bytes, version: int = 1) -> None:
    mark = replace(IMAGE, version=version)
    sink = host.stage(f"win-v{version}-0123456789ab.raw", len(content), mark)
    fill(sink, content, end=len(content))
    sink.commit(f"win-v{version}-0123456789ab.raw", mark)


def goes_on_after(bench: LibvirtBench, sink: Sink) -> None:
    """The host is back: nothing was published, what it took is still there, and the copy can be finished."""
    sink.close()
    content = pattern()
    with bench.driver() as host:
        survey = host.survey()
        assert survey.images == ()
        assert [staged.name for staged in survey.staged] == [NAME]
        again = host.stage(NAME, SIZE, IMAGE)
        assert again.token == sink.token
        assert read_all(again, SIZE)[: 4 * MIB] == content[: 4 * MIB]
        fill(again, content)
        image = again.commit(NAME, IMAGE)
        assert bench.path(image.ref).read_bytes() == content
    assert bench.litter() == []


@pytest.mark.parametrize("fault", ["power_cut", "kill_daemon"])
def test_a_copy_goes_on_after_its_host_died(bench: LibvirtBench, fault: str) -> None:
    sink = bench.connected().stage(NAME, SIZE, IMAGE)
    content = pattern()
    fill(sink, content, end=4 * MIB)
    sink.write(4 * MIB, aligned(content[4 * MIB : 5 * MIB]))
    getattr(bench.host, fault)()
    with pytest.raises(Unreachable):
        fill(sink, content, start=5 * MIB)
    with pytest.raises(Unreachable):
        sink.commit(NAME, IMAGE)
    if fault == "power_cut":
        with pytest.raises(Unreachable):
            bench.driver().connect()
        bench.host.boot()
    bench.host.wait()
    goes_on_after(bench, sink)


def test_a_finish_that_failed_fails_the_next_one_too(
    bench: LibvirtBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    libvirt = pytest.importorskip("libvirt")
    sink = bench.connected().stage(NAME, SIZE, IMAGE)
    sink.write(MIB, aligned(pattern(MIB)))

    def fails(_: object) -> None:
        raise libvirt.libvirtError("cannot write to stream")

    with monkeypatch.context() as patched:
        patched.setattr(libvirt.virStream, "finish", fails)
        with pytest.raises(DriverError):
            sink.flush()
    with pytest.raises(Unreachable, match="did not take all"):
        sink.flush()
    with pytest.raises(Unreachable):
        sink.commit(NAME, IMAGE)
    sink.abort()


def test_a_frozen_host_is_noticed_in_the_middle_of_a_copy(
    bench: LibvirtBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "_KEEPALIVE_SECONDS", 1)
    monkeypatch.setattr(connection, "CONNECT_SECONDS", 1.0)
    sink = bench.connected().stage(NAME, SIZE, IMAGE)
    fill(sink, pattern(), end=4 * MIB)
    bench.host.freeze()
    try:
        begun = time.monotonic()
        with pytest.raises(Unreachable) as silent:
            bench.driver().connect()
        assert silent.value.code == "TIMEOUT"
        with pytest.raises(Unreachable):
            fill(sink, pattern(), start=4 * MIB)
        assert time.monotonic() - begun < 15
    finally:
        bench.host.thaw()
    goes_on_after(bench, sink)


def test_a_frozen_host_does_not_delay_the_others(
    benches: list[LibvirtBench], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "CONNECT_SECONDS", 2.0)
    benches[0].host.freeze()
    try:
        faults: list[DriverError] = []
        stuck = threading.Thread(target=_connect_to, args=(benches[0], faults))
        stuck.start()
        for bench in benches[1:]:
            with bench.driver() as host:
                assert host.survey().images == ()
        stuck.join()
        assert [fault.code for fault in faults] == ["TIMEOUT"]
    finally:
        benches[0].host.thaw()


def _connect_to(bench: LibvirtBench, faults: list[DriverError]) -> None:
    try:
        bench.driver().connect()
    except DriverError as fault:
        faults.append(fault)


def test_a_full_pool_is_said_and_nothing_is_left(small_lab: Lab, tmp_path: Path) -> None:
    bench = LibvirtBench(tmp_path, small_lab.hosts[0])
    try:
        host = bench.connected()
        size = 48 * MIB
        sink = host.stage(NAME, size, IMAGE)
        with pytest.raises(NoSpace) as full:
            fill(sink, pattern(size), end=size)
        assert full.value.code == "NO_SPACE"
        sink.abort()
        survey = host.survey()
        assert (survey.staged, survey.images, bench.litter()) == ((), (), [])
        assert survey.free_bytes > 20 * MIB
        publish(host, pattern(8 * MIB))
        host.clone(spec(host, "one", linked=False))
        two = spec(host, "two", linked=False)
        with pytest.raises(NoSpace):
            host.clone(two)
        assert [guest.name for guest in host.survey().guests] == ["one"]
        assert bench.litter() == []
    finally:
        bench.close()


@pytest.mark.parametrize("data", [1 << 12, 1 << 18])
@pytest.mark.parametrize("number", [0, 1])
def test_a_flush_over_holes_that_met_a_full_pool_comes_back_and_says_so(
    small_lab: Lab, tmp_path: Path, data: int, number: int
) -> None:
    bench = LibvirtBench(tmp_path, small_lab.hosts[0])
    sink = bench.connected().stage(NAME, 16 << 20, IMAGE)
    filler = bench.path("filler")
    with filler.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(1 << 20))

    def send() -> None:
        for offset in range((1 + number) << 20, 4 << 20, 1 << 20):
            sink.write(offset, aligned(bytes([7]) * data))
        sink.flush()

    try:
        with pytest.raises(NoSpace):
            send()
        sink.abort()
        assert {path.name for path in bench.folder.iterdir()} == {".rasweb-host.json", "filler"}
    finally:
        filler.unlink()
        bench.close()


def test_a_stopped_pool_is_not_available_and_says_what_to_do(bench: LibvirtBench) -> None:
    pool = bench.libvirt.storagePoolLookupByName(bench.pool)
    pool.destroy()
    with pytest.raises(Unreachable, match="not started") as stopped:
        bench.driver().connect()
    assert "pool-start" in stopped.value.action
    pool.create()
    with bench.driver() as host:
        assert host.survey().images == ()


def test_a_missing_pool_is_refused(bench: LibvirtBench) -> None:
    with pytest.raises(Refused, match="no such storage pool"):
        bench.connected(pool="elsewhere")


def test_two_hosts_never_share_a_pool(benches: list[LibvirtBench]) -> None:
    one, other = benches[:2]
    marker = ".rasweb-host.json"
    (other.folder / marker).write_bytes((one.folder / marker).read_bytes())
    with pytest.raises(Refused, match="belongs to another host"):
        other.driver(host_id="").register()


def test_twenty_linked_clones_take_seconds(bench: LibvirtBench) -> None:
    host = bench.connected()
    publish(host, pattern())
    begun = time.monotonic()
    for number in range(20):
        host.clone(spec(host, f"desk-{number:02}"))
    took = time.monotonic() - begun
    assert len(host.survey().guests) == 20
    assert sum(guest.disks[0].allocated for guest in host.survey().guests) < SIZE
    assert took < 20


def test_guests_boot_from_linked_clones_and_run_on_while_the_next_version_comes(bench: LibvirtBench) -> None:
    host = bench.connected()
    publish(host, boot_sector("VERSION-ONE").ljust(SIZE, b"\0"))
    mark = replace(GUEST, owner="desk")
    host.clone(spec(host))
    host.power("desk", mark, True)
    assert hear(bench.libvirt, "desk", "VERSION-ONE")
    publish(host, boot_sector("VERSION-TWO").ljust(SIZE, b"\0"), version=2)
    assert hear(bench.libvirt, "desk", "VERSION-ONE")
    with pytest.raises(Refused, match="desk") as refused:
        host.remove("win-v1-0123456789ab.raw", replace(IMAGE, version=1))
    assert refused.value.code == "IN_USE"
    assert host.recreate(spec(host, version=2)).power == "on"
    assert hear(bench.libvirt, "desk", "VERSION-TWO")
    host.remove("win-v1-0123456789ab.raw", replace(IMAGE, version=1))
    host.delete_guest("desk", mark)
    assert (host.survey().guests, bench.litter()) == ((), [])


def test_an_overlay_that_somebody_else_made_keeps_its_base(bench: LibvirtBench) -> None:
    host = bench.connected()
    publish(host, pattern())
    (image,) = host.survey().images
    bench.libvirt.storagePoolLookupByName(bench.pool).createXML(
        f"<volume><name>theirs.qcow2</name><capacity>0</capacity><target><format type='qcow2'/></target>"
        f"<backingStore><path>{bench.path(image.ref)}</path><format type='raw'/></backingStore></volume>"
    )
    with pytest.raises(Refused, match="theirs") as refused:
        host.remove(image.name, replace(IMAGE, version=1), force=True)
    assert refused.value.code == "IN_USE"


COPY = Mark("here", "working-copy", "template-1")


def test_a_working_copy_is_an_ordinary_vm_that_can_be_started(bench: LibvirtBench) -> None:
    host = bench.connected()
    publish(host, boot_sector("MAINTAIN").ljust(SIZE, b"\0"))
    host.make_working_copy(replace(spec(host, linked=False), name="win maintenance", mark=COPY))
    bench.libvirt.lookupByName("win maintenance").create()
    assert hear(bench.libvirt, "win maintenance", "MAINTAIN")
    (copy,) = host.survey().vms
    assert (copy.power, copy.mark) == ("on", COPY)
    host.shut_down("win maintenance", COPY)
    assert hear(bench.libvirt, "win maintenance", "MAINTAIN")  # a system that does not listen
    host.shut_down("win maintenance", COPY, force=True)
    assert [vm.power for vm in host.survey().vms] == ["off"]
    host.remove_working_copy("win maintenance", COPY)
    assert bench.litter() == []
