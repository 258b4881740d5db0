"""A VM's definition: what of it may travel, why one can not, and the text of the VMs we make.

Only what is named here is ever carried from one host to another; everything else of a definition stays behind.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any
from xml.etree.ElementTree import Element

from providers_app.drivers import files, wire
from providers_app.drivers.base import Definition
from providers_app.drivers.errors import Refused

from . import xmltext

NAMESPACE = "urn:rasweb:vm:1"
_QEMU = "{http://libvirt.org/schemas/domain/qemu/1.0}"
_MACHINE = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_MODEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
BUSES = {"virtio": "vd", "scsi": "sd", "sata": "sd", "ide": "hd"}
_BIOS = ("bios.bin", "bios-256k.bin")
_CARDS = ("virtio", "e1000", "e1000e", "rtl8139")
_SCSI = ("virtio-scsi", "lsilogic")
_SCSI_DISKS = 7  # on one controller: libvirt would make the next of its usual model
_CPU_MODES = ("", "host-model", "host-passthrough", "maximum", "custom")
_UNITS = {
    "b": 1,
    "bytes": 1,
    "k": 1 << 10,
    "kib": 1 << 10,
    "m": 1 << 20,
    "mib": 1 << 20,
    "g": 1 << 30,
    "gib": 1 << 30,
}
_DISKS = "abcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True)
class Hardware:
    """The virtual hardware a guest system was installed on, as far as it matters to it.

    ``buses`` tells the bus of each disk where not all are on the same one, ``scsi`` the model of what serves those on
    SCSI; a guest system finds no disk on another.
    """

    type: str = ""
    machine: str = "q35"
    arch: str = "x86_64"
    bus: str = "virtio"
    card: str = "virtio"
    cpu_mode: str = ""
    cpu_model: str = ""
    clock: str = "utc"
    buses: tuple[str, ...] = ()
    scsi: str = ""

    def bus_of(self, disk: int) -> str:
        return self.buses[disk] if disk < len(self.buses) else self.bus

    def checked(self) -> Hardware:
        known = (
            self.type in ("", "kvm", "qemu")
            and _MACHINE.fullmatch(self.machine)
            and self.arch in ("x86_64", "aarch64")
            and {self.bus, *self.buses} <= BUSES.keys()
            and self.scsi in ("", *_SCSI)
            and self.card in _CARDS
            and self.cpu_mode in _CPU_MODES
            and (not self.cpu_model or _MODEL.fullmatch(self.cpu_model))
            and self.clock in ("utc", "localtime")
        )
        if not known:
            raise ValueError("not a hardware of ours")
        return self

    def encode(self) -> str:
        return json.dumps(asdict(self), sort_keys=True)


def hardware(text: str) -> Hardware:
    """Return the hardware that a version's definition carries; the usual one where it carries none."""
    if not text:
        return Hardware()
    try:
        made: Hardware = wire.rebuild(Hardware, files.parse_json(text.encode()))
        return made.checked()
    except ValueError:
        raise Refused(
            "The stored hardware of this template is not one that VMs can be made with.",
            code="PREREQUISITE",
            action="Create the template again.",
        ) from None


@dataclass(frozen=True)
class Drive:
    """A disk of a VM: the path of its file and the format the VM takes it for."""

    path: str
    format: str
    target: str
    bus: str


def drives(root: Element) -> Iterator[Drive]:
    """Yield the hard disks of a definition that are files; removable media are not disks."""
    for disk in _disks(root):
        source, driver, target = disk.find("source"), disk.find("driver"), disk.find("target")
        path = source.get("file", "") if source is not None else ""
        if disk.get("type") == "file" and path:
            form = driver.get("type", "raw") if driver is not None else "raw"
            name, bus = (target.get("dev", ""), target.get("bus", "")) if target is not None else ("", "")
            yield Drive(path, form, name, bus)


def sources(root: Element) -> Iterator[Element]:
    """Yield what any device of a VM uses, the images below its disks too."""
    yield from root.iterfind(".//devices//source")


def layered(root: Element) -> Iterator[Element]:
    """Yield the sources of the disks that may stand on other images: all but raw ones."""
    for disk in root.iterfind("devices/disk"):
        driver, source = disk.find("driver"), disk.find("source")
        if source is not None and driver is not None and driver.get("type", "raw") != "raw":
            yield source


def network_of(root: Element) -> str:
    card = _card(root)
    return _attached(card) if card is not None else ""


def _card(root: Element) -> Element | None:
    """Return the first network card that another VM can have too: one on a network or bridge."""
    return next(filter(_attached, root.iterfind("devices/interface")), None)


def _attached(card: Element) -> str:
    source, sort = card.find("source"), card.get("type", "")
    return source.get(sort, "") if source is not None and sort in ("network", "bridge") else ""


def _model(card: Element | None) -> str:
    model = card.find("model") if card is not None else None
    return model.get("type", "") if model is not None else ""


def _scsi(root: Element) -> set[str]:
    """Return the models of the SCSI controllers that hard disks are on."""
    disks = (disk for disk in _disks(root) if disk.find("target[@bus='scsi']") is not None)
    used = {place.get("controller") for disk in disks if (place := disk.find("address")) is not None}
    found = root.iterfind("devices/controller[@type='scsi']")
    return {each.get("model", "") for each in found if each.get("index") in used}


def memory_mib(root: Element) -> int:
    memory = root.find("memory")
    unit = memory.get("unit", "KiB").lower() if memory is not None else "kib"
    return xmltext.number(root, "memory") * _UNITS.get(unit, 1 << 10) >> 20


def hardware_of(root: Element) -> Hardware:
    """Return what may travel of a VM's hardware; what we do not carry becomes the usual."""
    kind, cpu = root.find("os/type"), root.find("cpu")
    clock, buses = root.find("clock"), tuple(drive.bus for drive in drives(root))
    mode = cpu.get("mode", "custom" if cpu.find("model") is not None else "") if cpu is not None else ""
    found: dict[str, Any] = {
        "type": root.get("type", ""),
        "machine": kind.get("machine", "") if kind is not None else "",
        "arch": kind.get("arch", "") if kind is not None else "",
        "bus": buses[0] if buses else "",
        "buses": buses if len(set(buses)) > 1 else (),
        "scsi": min(_scsi(root), default=""),
        "card": _model(_card(root)),
        "cpu_mode": mode,
        "cpu_model": (cpu.findtext("model") or "") if cpu is not None and mode == "custom" else "",
        "clock": clock.get("offset", "") if clock is not None else "",
    }
    return _usable(found)


def _usable(found: Mapping[str, Any]) -> Hardware:
    made = Hardware()
    for name, value in found.items():
        try:
            candidate = Hardware(**{**asdict(made), name: value}).checked()
        except ValueError:
            continue
        made = candidate if value else made
    return made


def problem(root: Element) -> str:
    """Say why a VM can not become a template; empty when it can. The first reason found."""
    return next((text for found, text in _obstacles(root) if found), "")


def _obstacles(root: Element) -> Iterator[tuple[bool, str]]:
    yield root.findtext("os/type") != "hvm", "It is no fully virtual machine."
    yield from _of_firmware(root)
    yield root.find("os/kernel") is not None, "It boots a kernel from a file of the host."
    yield root.find(f"{_QEMU}commandline") is not None, "It has a QEMU command line of its own."
    passed = (
        root.find("devices/hostdev") is not None
        or root.find("devices/interface[@type='hostdev']") is not None
    )
    yield passed, "It uses a device of the host."
    yield root.find("devices/filesystem") is not None, "It shares a folder of the host."
    yield root.find("devices/tpm") is not None, "It has a TPM, whose secrets are not carried along."
    yield from _of_disks(root)
    yield from _of_cards(root)


def _of_firmware(root: Element) -> Iterator[tuple[bool, str]]:
    loader = root.find("os/loader")
    pflash = loader is not None and loader.get("type") == "pflash"
    yield (
        pflash or root.find("os[@firmware='efi']") is not None or root.find("os/nvram") is not None,
        "It boots by UEFI, whose variables are kept outside of the storage pool and are not carried along.",
    )
    yield (
        loader is not None and (loader.text or "").rpartition("/")[2] not in _BIOS,
        "It boots by a firmware of its own, which is not carried along.",
    )


def _of_disks(root: Element) -> Iterator[tuple[bool, str]]:
    yield root.find("devices/disk//encryption") is not None, "A disk is encrypted."
    yield (
        any(disk.get("type") != "file" for disk in _disks(root)),
        "A disk is not a file of the storage pool.",
    )
    yield (
        any(drive.format not in ("raw", "qcow2") for drive in drives(root)),
        "A disk is neither raw nor qcow2.",
    )
    yield (
        any(drive.bus not in BUSES for drive in drives(root)),
        f"A disk is on none of the buses that are carried along: {', '.join(BUSES)}.",
    )
    yield (
        len(_scsi(root)) > 1 or not _scsi(root) <= set(_SCSI),
        f"Its SCSI controller is none of those that are carried along: {', '.join(_SCSI)}.",
    )
    yield len(_disks(root)) > len(_DISKS), f"It has more than {len(_DISKS)} disks."
    yield next(drives(root), None) is None, "It has no disk."


def _of_cards(root: Element) -> Iterator[tuple[bool, str]]:
    cards = root.findall("devices/interface")
    yield (
        len(cards) > 1,
        "It has several network cards, of which only one is carried along: remove the others.",
    )
    card = _card(root)
    yield bool(cards) and card is None, "Its network card is attached to no network or bridge of the host."
    yield (
        _model(card) not in ("", *_CARDS),
        f"Its network card is none of those that are carried along: {', '.join(_CARDS)}.",
    )


def _disks(root: Element) -> list[Element]:
    """Return the hard disks of a VM; a ``lun`` is one that its guest may speak SCSI with."""
    return [disk for disk in root.iterfind("devices/disk") if disk.get("device", "disk") in ("disk", "lun")]


@dataclass(frozen=True)
class Plan:
    """A VM to define. ``note`` is kept in its metadata; ``bridge`` tells that the network is a bridge."""

    name: str
    note: str
    definition: Definition
    disks: Sequence[tuple[str, str]]
    kind: str
    bridge: bool = False
    uuid: str = ""
    mac: str = ""


def text(plan: Plan) -> str:
    """Return the definition of one of our VMs, made of nothing but the plan."""
    parts = hardware(plan.definition.hardware)
    root = Element("domain", {"type": plan.kind})
    xmltext.add(root, "name", plan.name)
    if plan.uuid:
        xmltext.add(root, "uuid", plan.uuid)
    note = xmltext.add(root, "metadata")
    xmltext.add(note, f"{{{NAMESPACE}}}vm", plan.note)
    xmltext.add(root, "memory", max(16, plan.definition.memory_mib), unit="MiB")
    xmltext.add(root, "vcpu", max(1, plan.definition.vcpus))
    system = xmltext.add(root, "os")
    xmltext.add(system, "type", "hvm", arch=parts.arch, machine=parts.machine)
    xmltext.add(system, "boot", dev="hd")
    features = xmltext.add(root, "features")
    xmltext.add(features, "acpi")
    if parts.arch == "x86_64":
        xmltext.add(features, "apic")
    _add_cpu(root, parts, plan.kind)
    xmltext.add(root, "clock", offset=parts.clock)
    _add_devices(xmltext.add(root, "devices"), plan, parts)
    return xmltext.write(root)


def cpu_mode(parts: Hardware, kind: str) -> str:
    """Return how a VM's CPU is chosen; empty for the emulator's usual one."""
    return "" if kind != "kvm" and parts.cpu_mode in ("host-model", "host-passthrough") else parts.cpu_mode


def _add_cpu(root: Element, parts: Hardware, kind: str) -> None:
    mode = cpu_mode(parts, kind)
    if not mode:
        return
    cpu = xmltext.add(root, "cpu", mode=mode)
    if mode == "custom":
        cpu.set("match", "exact")
        xmltext.add(cpu, "model", parts.cpu_model, fallback="allow")


def _add_devices(devices: Element, plan: Plan, parts: Hardware) -> None:
    buses = [parts.bus_of(number) for number in range(len(plan.disks))]
    if parts.scsi and "scsi" in buses:
        for index in range(-(-len(buses) // _SCSI_DISKS)):
            xmltext.add(devices, "controller", type="scsi", index=str(index), model=parts.scsi)
    for (path, form), bus, letter in zip(plan.disks, buses, _DISKS[: len(buses)], strict=True):
        disk = xmltext.add(devices, "disk", type="file", device="disk")
        xmltext.add(disk, "driver", name="qemu", type=form)
        xmltext.add(disk, "source", file=path)
        xmltext.add(disk, "target", dev=f"{BUSES[bus]}{letter}", bus=bus)
    if plan.definition.network:
        sort = "bridge" if plan.bridge else "network"
        card = xmltext.add(devices, "interface", type=sort)
        if plan.mac:
            xmltext.add(card, "mac", address=plan.mac)
        xmltext.add(card, "source", **{sort: plan.definition.network})
        xmltext.add(card, "model", type=parts.card)
    xmltext.add(xmltext.add(devices, "serial", type="pty"), "target", port="0")
    xmltext.add(devices, "graphics", type="vnc", autoport="yes", listen="127.0.0.1")
    xmltext.add(xmltext.add(devices, "video"), "model", type="vga")
