"""VMs of others: which can become a template, and what of them travels."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import closing, nullcontext
from dataclasses import replace
from xml.etree import ElementTree as ET
from xml.etree.ElementTree import Element

import pytest

from providers_app.drivers import CloneSpec, Definition, DriverError, Refused
from providers_app.drivers.libvirt import domains, images
from providers_app.drivers.libvirt.definition import hardware
from providers_app.drivers.libvirt.notes import Note
from providers_app.drivers.libvirt.storage import Pool
from tests.drivers.benches import GUEST, IMAGE, NAME, known_bytes
from tests.drivers.copying import publish, read_all
from tests.lab.bench import LibvirtBench

HOST_DEVICE = (
    "<hostdev mode='subsystem' type='usb'><source><vendor id='0x1'/><product id='0x2'/></source></hostdev>"
)
SHARE = "<filesystem type='mount'><source dir='/etc'/><target dir='x'/></filesystem>"
BLOCK = "<disk type='block' device='disk'><source dev='/dev/sda'/><target dev='vdb' bus='virtio'/></disk>"
ELSEWHERE = (
    "<disk type='file' device='disk'><source file='/etc/passwd'/><target dev='vdb' bus='virtio'/></disk>"
)
CDROM = "<disk type='file' device='cdrom'><source file='/x.iso'/><target dev='sda' bus='sata'/></disk>"
LUN = "<disk type='block' device='lun'><source dev='/dev/sda'/><target dev='sda' bus='scsi'/></disk>"
ENCRYPTED = (
    "<disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='/x.qcow2'><encryption "
    "format='luks'><secret type='passphrase' uuid='0a81f5b2-8403-7b23-c8d6-21ccc2f80d6f'/></encryption></source>"
    "<target dev='vdb' bus='virtio'/></disk>"
)
TPM = "<tpm model='tpm-tis'><backend type='passthrough'><device path='/dev/tpm0'/></backend></tpm>"
QEMU = "<commandline xmlns='http://libvirt.org/schemas/domain/qemu/1.0'><arg value='-S'/></commandline>"
USER = "<interface type='user'><model type='virtio'/></interface>"
DIRECT = "<interface type='direct'><source dev='br0' mode='bridge'/><model type='virtio'/></interface>"
CARD = "<interface type='network'><source network='lan'/><model type='e1000'/></interface>"
TO_SCSI = {"<target dev='vda' bus='virtio'/>": "<target dev='sda' bus='scsi'/>"}


def among_devices(text: str) -> dict[str, str]:
    return {"</devices>": f"{text}</devices>"}


def scsi(model: str) -> dict[str, str]:
    return TO_SCSI | among_devices(f"<controller type='scsi' index='0' model='{model}'/>")


def to_boot(text: str) -> dict[str, str]:
    return {"</os>": f"{text}</os>"}


@pytest.mark.parametrize(
    ("edits", "why"),
    [
        (among_devices(HOST_DEVICE), "device of the host"),
        (among_devices(SHARE), "shares a folder"),
        (among_devices(BLOCK), "not a file"),
        (among_devices(LUN), "not a file"),
        (among_devices(ELSEWHERE), "not in the storage pool"),
        (among_devices(ENCRYPTED), "encrypted"),
        (among_devices(CDROM), ""),
        (among_devices(TPM), "TPM"),
        ({"</domain>": f"{QEMU}</domain>"}, "command line"),
        (to_boot("<kernel>/boot/vmlinuz</kernel>"), "kernel"),
        ({"<os>": "<os firmware='efi'>"}, "UEFI"),
        (to_boot("<loader readonly='yes' type='pflash'>/usr/share/OVMF/OVMF_CODE.fd</loader>"), "UEFI"),
        (to_boot("<loader>/usr/share/ovmf/OVMF.fd</loader>"), "firmware of its own"),
        (to_boot("<loader>/usr/share/seabios/bios-256k.bin</loader>"), ""),
        ({"<os>": "<os firmware='bios'>"}, ""),
        ({"<target dev='vda' bus='virtio'/>": "<target dev='sda' bus='usb'/>"}, "buses"),
        (TO_SCSI, ""),
        (scsi("lsisas1068"), "SCSI controller"),
        ({CARD: USER}, "no network or bridge"),
        ({CARD: DIRECT}, "no network or bridge"),
        ({CARD: CARD.replace("e1000", "ne2k_pci")}, "none of those"),
        ({CARD: ""}, ""),
        (among_devices(USER), "several network cards"),
    ],
    ids=["host device", "share", "block", "lun", "elsewhere", "encrypted", "cd", "tpm", "command line", "kernel",
         "uefi", "pflash", "rom", "seabios", "bios", "usb disk", "usual scsi", "other scsi",
         "user", "direct", "old card", "no card", "two cards"],
)  # fmt: skip
def test_a_vm_says_why_it_can_not_become_a_template(
    bench: LibvirtBench, edits: dict[str, str], why: str
) -> None:
    bench.add_vm("win", known_bytes())
    bench.define("other", "win-disk.raw", edits=edits)
    (vm,) = [vm for vm in bench.connected().survey().vms if vm.name == "other"]
    assert why in vm.problem
    assert bool(vm.problem) == bool(why)


def test_a_vm_that_was_saved_is_no_source_until_it_was_shut_down(bench: LibvirtBench) -> None:
    bench.add_vm("win", known_bytes())
    domain = bench.libvirt.lookupByName("win")
    domain.create()
    domain.managedSave()
    (vm,) = bench.connected().survey().vms
    assert "not shut down but saved" in vm.problem
    domain.managedSaveRemove()
    (vm,) = bench.connected().survey().vms
    assert vm.problem == ""


def test_a_vm_with_snapshots_is_no_source_until_they_are_gone(bench: LibvirtBench) -> None:
    bench.add_packed("win.qcow2", known_bytes())
    bench.define("win", "win.qcow2", form="qcow2")
    taken = bench.libvirt.lookupByName("win").snapshotCreateXML(
        "<domainsnapshot><name>one</name></domainsnapshot>"
    )
    (vm,) = bench.connected().survey().vms
    assert "has snapshots" in vm.problem
    taken.delete()
    (vm,) = bench.connected().survey().vms
    assert vm.problem == ""


@pytest.mark.parametrize("first", [USER, DIRECT], ids=["user", "direct"])
def test_the_card_on_a_network_is_the_one_that_counts(bench: LibvirtBench, first: str) -> None:
    bench.add_vm("win", known_bytes())
    bench.define("other", "win-disk.raw", edits={CARD: first + CARD})
    (vm,) = [vm for vm in bench.connected().survey().vms if vm.name == "other"]
    assert (vm.network, hardware(vm.hardware).card) == ("lan", "e1000")


def test_a_vm_with_more_disks_than_ours_can_have_is_no_source(bench: LibvirtBench) -> None:
    bench.add_vm("win", known_bytes())
    more = [BLOCK.replace("block", "file").replace("dev='/dev/sda'", f"file='/x{at}'") for at in range(26)]
    extra = "".join(
        disk.replace("vdb", f"vd{'ab'[at % 2]}{chr(97 + at // 2)}") for at, disk in enumerate(more)
    )
    bench.define("large", "win-disk.raw", extra=extra)
    (vm,) = [vm for vm in bench.connected().survey().vms if vm.name == "large"]
    assert "more than 26 disks" in vm.problem


def test_a_disk_that_is_not_what_its_vm_says_is_a_problem(bench: LibvirtBench) -> None:
    disk = bench.path(bench.add_vm("win", known_bytes()))
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", disk, "8M"], check=True)
    (vm,) = bench.connected().survey().vms
    assert "not what its definition says" in vm.problem


def test_a_raw_disk_that_begins_like_another_image_is_not_read(bench: LibvirtBench) -> None:
    ref = bench.add_vm("win", b"QFI\xfb".ljust(4096, b"\0"))
    with pytest.raises(Refused, match="begins like") as refused:
        bench.connected().open_source(ref)
    assert refused.value.code == "PREREQUISITE"


def test_a_qcow2_disk_is_published_as_what_its_guest_sees(bench: LibvirtBench) -> None:
    content = known_bytes(size=4 << 20)
    ref = "win.qcow2"
    bench.add_packed(ref, content)
    bench.define("win", ref, form="qcow2")
    host = bench.connected()
    ((disk,),) = [vm.disks for vm in host.survey().vms]
    assert (disk.format, disk.virtual_size, disk.size == len(content)) == ("qcow2", len(content), False)
    with closing(host.open_source(ref)) as source:
        assert (host.publishes, source.size) == ("raw", len(content))
        assert read_all(source, len(content)) == content
        assert sum(extent.length for extent in source.extents() if extent.data) < 1 << 20
    image = publish(host, content, NAME, IMAGE)
    assert bench.path(image.ref).read_bytes() == content
    for linked in (True, False):
        spec = CloneSpec(f"desk {linked}", (image.ref,), ("raw",), linked, Definition(64, 1), GUEST)
        (made,) = host.clone(spec).disks
        assert (made.format, made.virtual_size) == ("qcow2" if linked else "raw", len(content))
        compared = ["qemu-img", "compare", "-q", "-U", bench.path(ref), bench.path(made.ref)]
        assert subprocess.run(compared, check=False).returncode == 0


def test_what_a_guest_wrote_into_a_raw_disk_does_not_make_it_an_image(bench: LibvirtBench) -> None:
    host = bench.connected()
    image = publish(host, known_bytes(), NAME, IMAGE)
    spec = CloneSpec(
        "win", (image.ref,), ("raw",), False, Definition(64, 1), replace(GUEST, kind="working-copy")
    )
    (disk,) = host.make_working_copy(spec).disks
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", bench.path(disk.ref), "8M"], check=True)
    with pytest.raises(Refused, match="begins like a qcow2"):
        host.open_source(disk.ref)


@pytest.mark.parametrize(
    ("metadata", "why"),
    [
        ("<x:a xmlns:x='urn:x'><![CDATA[<!DOCTYPE]]></x:a>", ""),
        ("<x:a xmlns:x='urn:x'><y:b/></x:a>", "can not be read"),
    ],
    ids=["looks like a document type", "not well formed"],
)
def test_what_others_keep_in_their_vms_hides_no_other_vm(
    bench: LibvirtBench, metadata: str, why: str
) -> None:
    host = bench.connected()
    publish(host, known_bytes(), NAME, IMAGE)
    bench.add_vm("win", known_bytes())
    bench.define("odd", "win-disk.raw", edits={"<memory": f"<metadata>{metadata}</metadata><memory"})
    problems = {vm.name: vm.problem for vm in host.survey().vms}
    assert problems["win"] == ""
    assert why in problems["odd"]
    assert bool(problems["odd"]) == bool(why)
    with pytest.raises(DriverError, match="VM odd") if why else nullcontext():
        host.remove(NAME, IMAGE)


def test_a_vm_that_goes_during_a_survey_is_left_out(
    bench: LibvirtBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = bench.connected()
    bench.add_vm("win", known_bytes())
    bench.define("gone", "win-disk.raw")
    there = images.published

    def and_meanwhile(pool: Pool) -> Iterator[Note]:
        monkeypatch.undo()
        bench.libvirt.lookupByName("gone").undefine()
        return there(pool)

    monkeypatch.setattr(images, "published", and_meanwhile)
    assert [vm.name for vm in host.survey().vms] == ["win"]


def test_a_vm_that_goes_while_an_image_is_removed_uses_nothing(
    bench: LibvirtBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = bench.connected()
    image = publish(host, known_bytes(), NAME, IMAGE)
    bench.add_vm("gone", known_bytes())
    bench.libvirt.lookupByName("gone").create()
    there = domains.definition.sources

    def and_meanwhile(root: Element) -> Iterator[Element]:
        monkeypatch.undo()
        domain = bench.libvirt.lookupByName("gone")
        domain.destroy()
        domain.undefine()
        return there(root)

    monkeypatch.setattr(domains.definition, "sources", and_meanwhile)
    host.remove(NAME, IMAGE)
    assert not bench.path(image.ref).exists()


def test_files_whose_names_are_not_text_hold_nothing_up(bench: LibvirtBench) -> None:
    odd = os.fsencode(bench.folder) + b"/B\xfcro.iso"
    with open(odd, "wb") as file:
        file.write(b"somebody else's")
    overlay = ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", odd, bench.path("theirs.qcow2")]
    subprocess.run(overlay, check=True)
    host = bench.connected()
    image = publish(host, known_bytes(), NAME, IMAGE)
    spec = CloneSpec("desk", (image.ref,), ("raw",), True, Definition(64, 1), GUEST)
    host.clone(spec)
    host.recreate(spec)
    host.delete_guest("desk", GUEST)
    assert [each.name for each in host.survey().images] == [NAME]
    host.remove(NAME, IMAGE)
    left = {b".rasweb-host.json", b"B\xfcro.iso", b"theirs.qcow2"}
    assert set(os.listdir(os.fsencode(bench.folder))) == left


def test_a_network_whose_bridge_is_gone_is_not_there(bench: LibvirtBench) -> None:
    text = "<network><name>uplink</name><forward mode='bridge'/><bridge name='br9'/></network>"
    network = bench.libvirt.networkDefineXML(text)
    network.create()
    try:
        assert set(bench.connected().survey().networks or ()) == {*bench.networks, "br0"}
    finally:
        network.destroy()
        network.undefine()


@pytest.mark.parametrize("model", ["virtio-scsi", "lsilogic"])
def test_disks_on_scsi_find_the_controller_they_had(bench: LibvirtBench, model: str) -> None:
    host = bench.connected()
    bench.path("win.raw").write_bytes(bytes(4096))
    bench.define("win", "win.raw", edits=scsi(model))
    (source,) = host.survey().vms
    assert (source.problem, hardware(source.hardware).scsi) == ("", model)
    refs = [publish(host, known_bytes(), f"{disk}{NAME}", replace(IMAGE, disk=disk)).ref for disk in range(8)]
    definition = Definition(64, 1, "lan", source.hardware)
    host.clone(CloneSpec("desk", tuple(refs), ("raw",) * 8, True, definition, GUEST))
    root = ET.fromstring(bench.definitions()["desk"])
    found = [each.get("model") for each in root.iterfind("devices/controller[@type='scsi']")]
    assert found == [model] * 2
    (guest,) = host.survey().guests
    assert guest.hardware == source.hardware
    host.power("desk", GUEST, True)


def test_a_scsi_controller_without_disks_does_not_count(bench: LibvirtBench) -> None:
    bench.path("win.raw").write_bytes(bytes(4096))
    idle = among_devices("<controller type='scsi' index='0' model='lsisas1068'/>")
    bench.define(
        "win", "win.raw", edits={"<target dev='vda' bus='virtio'/>": "<target dev='sda' bus='sata'/>"} | idle
    )
    (vm,) = bench.connected().survey().vms
    assert (vm.problem, hardware(vm.hardware).scsi) == ("", "")


def test_each_disk_of_a_guest_is_on_the_bus_it_was_on(bench: LibvirtBench) -> None:
    host = bench.connected()
    bench.define(
        "win",
        "one.raw",
        extra=BLOCK.replace("block", "file").replace(
            "dev='/dev/sda'/><target dev='vdb' bus='virtio'",
            f"file='{bench.inner}/two.raw'/><target dev='sda' bus='sata'",
        ),
    )
    for file in ("one.raw", "two.raw"):
        bench.path(file).write_bytes(bytes(4096))
    (source,) = host.survey().vms
    assert source.problem == ""
    refs = [publish(host, known_bytes(), f"{disk}{NAME}", replace(IMAGE, disk=disk)).ref for disk in (0, 1)]
    definition = Definition(64, 1, "lan", source.hardware)
    host.clone(CloneSpec("desk", tuple(refs), ("raw", "raw"), True, definition, GUEST))
    root = ET.fromstring(bench.definitions()["desk"])
    buses = [(target.get("dev"), target.get("bus")) for target in root.iterfind("devices/disk/target")]
    assert sorted(buses) == [("sdb", "sata"), ("vda", "virtio")]
    (guest,) = host.survey().guests
    assert guest.hardware == source.hardware
