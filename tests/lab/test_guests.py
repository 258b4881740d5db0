"""Guests among VMs and volumes of others, and guests that run, are saved or paused when they get new disks."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from providers_app.drivers import CloneSpec, Definition, Driver, DriverError, Missing, Refused, files
from providers_app.drivers.libvirt import domains
from tests.drivers.benches import IMAGE
from tests.lab.bench import LibvirtBench
from tests.lab.desk import DESK, domain, first, remove_first, spec

DISK_ONLY = 16  # VIR_DOMAIN_SNAPSHOT_CREATE_DISK_ONLY


def attach(bench: LibvirtBench, file: str, form: str = "raw") -> None:
    domain(bench).attachDeviceFlags(
        f"<disk type='file' device='disk'><driver name='qemu' type='{form}'/>"
        f"<source file='{bench.inner}/{file}'/><target dev='vdb' bus='virtio'/></disk>",
        2,
    )


@pytest.mark.parametrize("verb", ["recreate", "delete"])
@pytest.mark.parametrize("given", ["payroll.raw", "image"])
def test_what_a_guest_was_given_by_hand_is_never_deleted(
    bench: LibvirtBench, host: Driver, verb: str, given: str
) -> None:
    file = given
    if given == "image":
        (file,) = [each.ref for each in host.survey().images if each.mark and each.mark.version == 2]
    else:
        (bench.folder / file).write_bytes(b"payroll")
        bench.libvirt.storagePoolLookupByName(bench.pool).refresh()
    attach(bench, file)
    host.recreate(spec(host, 2)) if verb == "recreate" else host.delete_guest("desk", DESK)
    assert (bench.folder / file).exists()
    assert verb == "recreate" or not [each for each in bench.folder.iterdir() if each.name.startswith("desk")]


@pytest.mark.parametrize("verb", ["recreate", "delete"])
@pytest.mark.parametrize("on", [True, False])
def test_the_snapshots_of_a_guest_go_with_its_disk(
    bench: LibvirtBench, host: Driver, verb: str, on: bool
) -> None:
    if on:
        host.power("desk", DESK, on=True)
    for name in ("one", "two"):
        domain(bench).snapshotCreateXML(f"<domainsnapshot><name>{name}</name></domainsnapshot>", DISK_ONLY)
    assert (bench.folder / Path(host.survey().guests[0].disks[0].ref)).suffix == ".two"
    if verb == "delete":
        host.delete_guest("desk", DESK)
    else:
        assert host.recreate(spec(host, 2)).power == ("on" if on else "off")
        assert domain(bench).snapshotNum() == 0
    assert [file for file in bench.folder.iterdir() if file.suffix in (".one", ".two")] == []
    assert bench.litter() == []
    remove_first(host)


@pytest.mark.parametrize("verb", ["recreate", "delete"])
def test_the_disk_of_a_guest_whose_note_does_not_name_it_is_told_by_its_name(
    bench: LibvirtBench, host: Driver, verb: str
) -> None:
    (bench.folder / "desk.disk1.raw").write_bytes(b"payroll")
    bench.libvirt.storagePoolLookupByName(bench.pool).refresh()
    attach(bench, "desk.disk1.raw")
    text = re.sub(r'"volumes": \[.*?\]', '"volumes": []', domain(bench).XMLDesc(2))
    bench.libvirt.defineXML(text)
    assert '"volumes": []' in bench.metadata_of("desk")
    host.recreate(spec(host, 2)) if verb == "recreate" else host.delete_guest("desk", DESK)
    assert (bench.folder / "desk.disk1.raw").exists()
    assert bench.litter() == []


def test_a_saved_guest_starts_with_its_new_disks(bench: LibvirtBench, host: Driver) -> None:
    host.power("desk", DESK, on=True)
    domain(bench).managedSave()
    host.recreate(spec(host, 2))
    host.power("desk", DESK, on=True)
    assert domain(bench).isActive()


def test_a_paused_guest_can_be_recreated_and_stopped(bench: LibvirtBench, host: Driver) -> None:
    host.power("desk", DESK, on=True)
    domain(bench).suspend()
    assert host.recreate(spec(host, 2)).power == "on"
    domain(bench).suspend()
    host.power("desk", DESK, on=False)
    assert not domain(bench).isActive()


def test_a_saved_working_copy_is_not_off(bench: LibvirtBench, host: Driver) -> None:
    mark = replace(IMAGE, kind="working-copy", owner="template-1")
    host.make_working_copy(replace(spec(host), name="desk work", linked=False, mark=mark))
    copy = bench.libvirt.lookupByName("desk work")
    copy.create()
    copy.managedSave()
    (vm,) = [each for each in host.survey().vms if each.name == "desk work"]
    assert "saved" in vm.problem


def test_a_guest_that_ran_runs_again_when_its_new_definition_is_refused(
    bench: LibvirtBench, host: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    host.power("desk", DESK, on=True)
    with pytest.raises(DriverError):
        host.recreate(spec(host, 2, machine="pc-none"))
    assert domain(bench).isActive()
    assert bench.litter() == []


class Dead(BaseException):
    """What a process that died would have done next never happens."""


@pytest.mark.parametrize("at", ["defineXMLFlags", "create"])
def test_a_guest_that_ran_runs_after_a_crash_in_the_middle(
    bench: LibvirtBench, host: Driver, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    host.power("desk", DESK, on=True)
    do = files.do

    def dies(call: Any, *args: Any, **kwargs: Any) -> Any:
        if getattr(call, "__name__", "") == at:
            raise Dead
        return do(call, *args, **kwargs)

    with monkeypatch.context() as patched:
        patched.setattr(files, "do", dies)
        with pytest.raises(Dead):
            host.recreate(spec(host, 2))
    assert not domain(bench).isActive()
    again = bench.connected()
    assert again.recreate(spec(again, 2)).power == "on"
    assert bench.litter() == []


def test_the_old_disk_stays_until_the_new_guest_runs(
    bench: LibvirtBench, host: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    (before,) = host.survey().guests
    host.power("desk", DESK, on=True)
    do = files.do

    def fails(call: Any, *args: Any, **kwargs: Any) -> Any:
        if getattr(call, "__name__", "") == "create":
            raise OSError(12, "no memory")
        return do(call, *args, **kwargs)

    with monkeypatch.context() as patched:
        patched.setattr(files, "do", fails)
        with pytest.raises((DriverError, OSError)):
            host.recreate(spec(host, 2))
    assert bench.path(before.disks[0].ref).exists()
    assert host.recreate(spec(host, 2)).power == "on"
    assert not bench.path(before.disks[0].ref).exists()


@pytest.mark.parametrize("gone", ["disk", "image"])
def test_a_guest_that_lost_a_disk_says_which(bench: LibvirtBench, host: Driver, gone: str) -> None:
    (guest,) = host.survey().guests
    lost = guest.disks[0].ref if gone == "disk" else first(host)
    bench.path(lost).unlink()
    with pytest.raises(Missing, match=re.escape(lost)) as said:
        host.power("desk", DESK, on=True)
    assert said.value.code == "CONTENT_LOST"


def too_large(host: Driver) -> CloneSpec:
    """A VM that can be defined, but not be started."""
    return replace(spec(host, 2), definition=Definition(1 << 24, 1))


def test_a_guest_that_does_not_start_any_more_is_deleted_all_the_same(
    bench: LibvirtBench, host: Driver
) -> None:
    host.power("desk", DESK, on=True)
    with pytest.raises(DriverError):
        host.recreate(too_large(host))
    host.delete_guest("desk", DESK)
    assert (host.survey().guests, bench.litter()) == ((), [])


def test_a_guest_that_does_not_start_any_more_is_recreated_and_runs(
    bench: LibvirtBench, host: Driver
) -> None:
    host.power("desk", DESK, on=True)
    for _ in range(2):
        with pytest.raises(DriverError):
            host.recreate(too_large(host))
    assert host.recreate(spec(host, 2)).power == "on"
    assert bench.litter() == []


def test_a_vm_that_took_the_name_of_a_guest_is_not_started(
    bench: LibvirtBench, host: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    host.power("desk", DESK, on=True)
    with monkeypatch.context() as patched:
        patched.setattr(domains, "define", dies)
        with pytest.raises(Dead):
            host.recreate(spec(host, 2))
    domain(bench).undefine()
    bench.add_foreign_guest("desk")
    again = bench.connected()
    with pytest.raises(Refused) as refused:
        again.recreate(spec(again, 2))
    assert refused.value.code == "PATH_CONFLICT"
    assert not domain(bench).isActive()


def dies(*_: object) -> None:
    raise Dead


def test_a_guest_that_was_recreated_meanwhile_is_not_recreated_again(
    bench: LibvirtBench, host: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop = domains.stop

    def overtaken(*args: Any) -> None:
        monkeypatch.undo()
        bench.connected().recreate(spec(host, 2))
        stop(*args)

    monkeypatch.setattr(domains, "stop", overtaken)
    with pytest.raises(Refused) as refused:
        host.recreate(spec(host, 2))
    assert refused.value.code == "PATH_CONFLICT"
    (guest,) = host.survey().guests
    assert (guest.problem, bench.litter()) == ("", [])


def test_a_guest_that_somebody_forgot_is_deleted_all_the_same(
    bench: LibvirtBench, host: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    undefine = domain(bench).undefine
    do = files.do

    def beaten(call: Any, *args: Any, **kwargs: Any) -> Any:
        if getattr(call, "__name__", "") == "undefineFlags":
            undefine()
        return do(call, *args, **kwargs)

    monkeypatch.setattr(files, "do", beaten)
    host.delete_guest("desk", DESK)
    assert (host.survey().guests, bench.litter()) == ((), [])
