"""What a host's folder holds. What others wrote there is data: odd things become a VM's problem, never a crash."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from providers_app.drivers import blocks, files, qcow2
from providers_app.drivers.base import VM, Can, Definition, Disk, Image, Survey
from providers_app.drivers.errors import DriverError, Refused
from providers_app.drivers.files import Folder, shown

from . import notes
from .errors import errors
from .layout import Host

DEFINITION = "vm.json"
_MOST_MEMORY_MIB = 16 << 20
_MOST_VCPUS = 1024


def survey(host: Host, networks: tuple[str, ...] | None) -> Survey:
    """Read all of a host. Changes nothing."""
    with errors("its content", host.path):
        host.root.check_present()
        free, total = host.root.space()
        return Survey(
            host.id,
            can=abilities(),
            vms=tuple(machines(host.vms, "vms")),
            guests=tuple(machines(host.guests, "guests")),
            images=tuple(published(host)),
            staged=tuple(staged(host)),
            networks=networks,
            free_bytes=free,
            total_bytes=total,
        )


def abilities() -> frozenset[Can]:
    return frozenset({Can.FULL_CLONE, Can.LINKED_CLONE} if qcow2.can_link() else {Can.FULL_CLONE})


def published(host: Host) -> Iterator[Image]:
    """Yield every visible file of the images folder, with the mark of those that are ours."""
    for name in host.images.names():
        found = host.images.stat(name)
        if name.startswith(".") or found is None or not stat.S_ISREG(found.st_mode):
            continue
        note = notes.read(host.images, notes.of_image(name)) if len(name) < 200 else None
        label = shown(name)
        mark = note.mark if note else None
        yield Image(f"images/{label}", label, found.st_size, files.stamp_of(found), mark)


def staged(host: Host) -> Iterator[Image]:
    for part in notes.parts(host.images):
        found = host.images.stat(part.file)
        if found and stat.S_ISREG(found.st_mode):
            note = notes.read(host.images, part.note)
            stamp, name = files.stamp_of(found), shown(part.name)
            yield Image(f"images/{shown(part.file)}", name, found.st_size, stamp, note.mark if note else None)


def machines(room: Folder, kind: str) -> Iterator[VM]:
    """Yield the VMs of a room; one whose swap was cut short is still there under its side name."""
    names = room.names()
    for name in names:
        if not name.startswith(".") and (found := room.stat(name)) and not stat.S_ISREG(found.st_mode):
            with suppress(FileNotFoundError):
                yield machine(room, name, kind)
    for side in notes.sides(room):
        if side.state == "old" and side.name not in names:
            with suppress(FileNotFoundError):
                yield machine(room, side.folder, kind, name=side.name)


def machine(room: Folder, folder: str, kind: str, *, name: str = "") -> VM:
    """Describe the VM in one folder, or say what is wrong with it; FileNotFoundError when it is gone."""
    label, ref = shown(name or folder), f"{kind}/{shown(folder)}"
    if not printable(folder):
        return VM(ref, label, problem="The name of its folder holds characters that are not allowed.")
    try:
        with room.folder(folder) as inside:
            return _describe(inside, VM(ref, label), stands_alone=kind == "vms")
    except FileNotFoundError:
        raise
    except OSError as error:
        return VM(ref, label, problem=_odd(error))


def _describe(folder: Folder, vm: VM, *, stands_alone: bool) -> VM:
    definition, problems = _definition(folder)
    disks, on = [], False
    for name in sorted(folder.names(), key=_in_order):
        form = name.rpartition(".")[2]
        if form not in qcow2.FORMATS or name.startswith("."):
            continue
        try:
            disk, running = _disk(folder, name, form, stands_alone)
        except DriverError as error:
            problems.append(f"{shown(name)}: {error.text}")
        except OSError as error:
            problems.append(f"{shown(name)}: {_odd(error)}")
        else:
            disks.append(
                Disk(f"{vm.ref}/{disk.name}", disk.name, form, disk.size, disk.virtual_size, disk.allocated)
            )
            on = on or running
    if not disks and not problems:
        problems.append("Its folder holds no disk image (*.raw, *.qcow2).")
    note = notes.read(folder, notes.IN_FOLDER)
    return VM(
        vm.ref,
        vm.name,
        tuple(disks),
        definition.memory_mib,
        definition.vcpus,
        definition.network,
        "on" if on else "off",
        note.mark if note else None,
        " ".join(problems),
    )


def _in_order(name: str) -> list[tuple[int, str]]:
    """Sort numbers in names by their value: disk2 comes before disk10."""
    return [(int(part), "") if part.isdecimal() else (0, part) for part in re.split(r"([0-9]+)", name)]


def _disk(folder: Folder, name: str, form: str, stands_alone: bool) -> tuple[Disk, bool]:
    if not printable(name):
        raise Refused("The name holds characters that are not allowed.")
    fd = folder.open(name)
    try:
        found = os.fstat(fd)
        size = qcow2.virtual_size(fd, form) if stands_alone else _plain_size(fd, form)
        return Disk("", name, form, found.st_size, size, found.st_blocks * 512), blocks.running(fd)
    finally:
        os.close(fd)


def _plain_size(fd: int, form: str) -> int:
    """Return the size a guest sees of a guest's own disk, which may stand on an image."""
    return qcow2.read_header(fd).virtual_size if form == "qcow2" else os.fstat(fd).st_size


def _definition(folder: Folder) -> tuple[Definition, list[str]]:
    if folder.stat(DEFINITION) is None:
        return Definition(), []
    try:
        known = files.parse_json(folder.read(DEFINITION))
        return _checked_definition(known), []
    except ValueError as error:
        return Definition(), [f"Its {DEFINITION} makes no sense: {error}."]
    except OSError as error:
        return Definition(), [f"{DEFINITION}: {_odd(error)}"]


def _checked_definition(known: Any) -> Definition:
    if not isinstance(known, dict):
        raise ValueError("it is not an object")
    given = Definition()
    memory = _number(known, "memory_mib", given.memory_mib, _MOST_MEMORY_MIB)
    vcpus = _number(known, "vcpus", given.vcpus, _MOST_VCPUS)
    network = known.get("network", "")
    if not isinstance(network, str) or not printable(network) or len(network) > 100:
        raise ValueError("network is not a name")
    return Definition(memory, vcpus, network)


def _number(known: dict[str, Any], name: str, default: int, most: int) -> int:
    value = known.get(name, default)
    if type(value) is not int or not 1 <= value <= most:
        raise ValueError(f"{name} is not a number from 1 to {most}")
    return value


def users(host: Host, image: str) -> list[str]:
    """Return the names of the VMs on this host that have a published image as the base of a disk, or run on it."""
    found = host.images.stat(image)
    base = (found.st_dev, found.st_ino) if found else None
    using = []
    for room in (host.guests, host.vms):
        for name in room.names():
            with suppress(NotADirectoryError), _opened(room, name) as folder:
                if any(_stands_on(folder, disk, image, base) for disk in folder.names()):
                    using.append(shown(name))
    return using + (["a running VM"] if _running(host.images, image) else [])


def _opened(room: Folder, name: str) -> Folder:
    found = room.stat(name)
    if found is None or not stat.S_ISDIR(found.st_mode):
        raise NotADirectoryError
    return room.folder(name)


def _stands_on(folder: Folder, disk: str, image: str, base: tuple[int, int] | None) -> bool:
    try:
        fd = folder.open(disk)
    except FileNotFoundError:
        return False
    except OSError as error:
        if error.errno == files.NOT_A_FILE:
            return False
        raise
    try:
        backing = qcow2.backing(fd)
    except Refused:
        return False
    finally:
        os.close(fd)
    if not backing:
        return False
    with suppress(OSError, ValueError):
        target = os.stat(backing, dir_fd=folder.fd)
        if (target.st_dev, target.st_ino) == base:
            return True
    return image in backing


def _running(images: Folder, name: str) -> bool:
    try:
        fd = images.open(name)
    except FileNotFoundError:
        return False
    try:
        return blocks.running(fd)
    finally:
        os.close(fd)


def printable(text: str) -> bool:
    """Tell whether a name from a host may be used as it is: no control, direction or undecodable characters."""
    return text.isprintable() and len(text) <= 100


def _odd(error: OSError) -> str:
    if error.errno == files.NOT_A_FILE or isinstance(error, NotADirectoryError):
        return "It is a link, a pipe or a device; only real files and folders are used."
    return f"It can not be read: {os.strerror(error.errno or 0)}."
