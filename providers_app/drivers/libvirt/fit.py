"""Which virtual hardware a host offers, and what of a VM's it does not: known before a byte moves.

The offer is small and goes with each survey; libvirt keeps what it is made of, so asking takes milliseconds. Reading
an offer asks nobody and needs no library.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from xml.etree.ElementTree import Element

from providers_app.drivers import files, wire
from providers_app.drivers.base import Definition, Misfit
from providers_app.drivers.errors import Refused

from . import definition, xmltext
from . import errors as faults
from .definition import Hardware
from .host import Host

_BOARDS = {"x86_64": ("q35", "pc"), "aarch64": ("virt",)}
_DEVICES = {"disk": "bus", "graphics": "type", "video": "modelType"}
_USED = {
    **{f"disk {bus}": f"disks on the bus {bus}" for bus in definition.BUSES},
    "graphics vnc": "consoles by VNC",
    "video vga": "VGA graphics",
}
_NUMBERED = re.compile(r"(?P<family>.+-)(?P<major>\d+)\.(?P<minor>\d+)")


@dataclass(frozen=True)
class Way:
    """One way of running VMs: with what boards, devices, and models and modes of CPUs."""

    type: str
    arch: str
    vcpus: int
    machines: tuple[str, ...]
    devices: tuple[str, ...]
    modes: tuple[str, ...]
    models: tuple[str, ...]


@dataclass(frozen=True)
class Offer:
    memory_mib: int
    ways: tuple[Way, ...]


def offer(host: Host) -> str:
    """Ask a host for what it offers."""
    with host.errors("its description"):
        memory = int(host.connection.getInfo()[1])
    return json.dumps(asdict(Offer(memory, tuple(_ways(host)))), sort_keys=True)


def _ways(host: Host) -> Iterator[Way]:
    for arch in host.capabilities.iterfind("guest/arch"):
        name = arch.get("name", "")
        for kind in {each.get("type", "") for each in arch.iterfind("domain")} & {"kvm", "qemu"}:
            boards = [root for board in _BOARDS.get(name, ()) if (root := _board(host, name, board, kind))]
            if boards:
                yield _way(arch, kind, boards)


def _board(host: Host, arch: str, board: str, kind: str) -> Element | None:
    import libvirt

    with host.errors("its description"):
        try:
            return xmltext.parse(str(host.connection.getDomainCapabilities(None, arch, board, kind)))
        except libvirt.libvirtError as error:
            if faults.code_of(error) in (faults.INVALID_ARG, faults.CONFIG_UNSUPPORTED, faults.NO_SUPPORT):
                return None
            raise


def _way(arch: Element, kind: str, boards: Sequence[Element]) -> Way:
    there = {
        f"{device} {value.text}"
        for board in boards
        for device, enum in _DEVICES.items()
        for value in board.iterfind(f"devices/{device}/enum[@name='{enum}']/value")
    }
    modes = {
        mode.get("name", "") for board in boards for mode in board.iterfind("cpu/mode[@supported='yes']")
    }
    models = {
        model.text or ""
        for board in boards
        for model in board.iterfind("cpu/mode[@name='custom']/model[@usable='yes']")
    }
    return Way(
        type=kind,
        arch=arch.get("name", ""),
        vcpus=max(int(count.get("max", 0)) for board in boards for count in board.iterfind("vcpu")),
        machines=tuple(sorted({machine.text or "" for machine in arch.iterfind(".//machine")})),
        devices=tuple(sorted(there & set(_USED))),
        modes=tuple(sorted(modes)),
        models=tuple(sorted(models)),
    )


def misfits(text: str, wanted: Definition, host: str) -> Iterator[Misfit]:
    """Yield what ``wanted`` needs and the offer ``text`` lacks; nothing where a host has not said what it offers."""
    if not text:
        return
    try:
        known: Offer = wire.rebuild(Offer, files.parse_json(text.encode()))
        parts = definition.hardware(wanted.hardware)
    except ValueError:
        return
    except Refused as refused:
        yield Misfit(refused.text, refused.action)
        return
    if wanted.memory_mib > known.memory_mib:
        has = f"{host} has {known.memory_mib} MiB of memory, the VM {wanted.memory_mib} MiB."
        yield Misfit(has, "Choose a larger provider.")
    way = _best(known, parts)
    if way is None:
        yield _no_way(parts, host)
    else:
        yield from _lacking(way, wanted, parts, host)


def _best(known: Offer, parts: Hardware) -> Way | None:
    fitting = {way.type: way for way in known.ways if way.arch == parts.arch}
    return fitting.get(parts.type) if parts.type else fitting.get("kvm") or fitting.get("qemu")


def _no_way(parts: Hardware, host: str) -> Misfit:
    if parts.type == "kvm":
        text = f"{host} has no KVM for {parts.arch}: it could only emulate the VMs, many times slower."
        return Misfit(text, "Switch virtualization on in its firmware, or choose another provider.")
    return Misfit(
        f"{host} runs no {parts.arch} VMs.", "Install QEMU for them there, or choose another provider."
    )


def _lacking(way: Way, wanted: Definition, parts: Hardware, host: str) -> Iterator[Misfit]:
    if parts.machine not in way.machines:
        yield _no_machine(way, parts.machine, host)
    if wanted.vcpus > way.vcpus:
        text = f"{host} gives a VM {way.vcpus} CPUs at most, this one has {wanted.vcpus}."
        yield Misfit(text, "Choose another provider.")
    buses = sorted({parts.bus, *parts.buses})
    for device in (*(f"disk {bus}" for bus in buses), "graphics vnc", "video vga"):
        if device not in way.devices:
            yield Misfit(
                f"{host} offers no {_USED[device]}.", "Install all of QEMU there, or choose another provider."
            )
    yield from _no_cpu(way, parts, host)


def _no_machine(way: Way, machine: str, host: str) -> Misfit:
    wanted = _NUMBERED.fullmatch(machine)
    alike = [
        (int(found["major"]), int(found["minor"]), name)
        for name in way.machines
        if wanted and (found := _NUMBERED.fullmatch(name)) and found["family"] == wanted["family"]
    ]
    newest = f"; the newest of its kind there is {max(alike)[2]}" if alike else ""
    return Misfit(
        f"{host} has no machine type {machine}{newest}.",
        "Update QEMU there, or create the template from a VM of an older machine type that all hosts have.",
    )


def _no_cpu(way: Way, parts: Hardware, host: str) -> Iterator[Misfit]:
    mode = definition.cpu_mode(parts, way.type)
    action = "Give the source VM a CPU that all hosts offer, and create the template from it again."
    if mode and mode not in way.modes:
        yield Misfit(f"{host} does not offer the CPU mode {mode}.", action)
    elif mode == "custom" and parts.cpu_model not in way.models:
        yield Misfit(f"{host} can not give a VM the CPU model {parts.cpu_model}.", action)
