"""VMs of the simulator: their disks are made aside, and become a VM by one change of the index."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace

from providers_app.drivers import blocks, files, qcow2
from providers_app.drivers.base import VM, CloneSpec, Disk, Mark
from providers_app.drivers.errors import Missing, Refused
from providers_app.drivers.simulator.index import Blob, Held, Index, Machine, Store

GUESTS, VMS = "guests", "vms"


def make(store: Store, room: str, spec: CloneSpec) -> VM:
    """Make a VM, or return it when it is there already."""
    files.check_name(spec.name)
    with store.change() as index:
        present = _present(index, room, spec.name, spec.mark)
    if present is None:
        with _disks(store, spec) as disks, store.change() as index:
            if (present := _present(index, room, spec.name, spec.mark)) is None:
                present = Machine(
                    files.token(), spec.name, disks, spec.definition, "off", spec.mark, spec.images
                )
                _put(index, room, (*_all(index, room), present))
                _made(index, disks)
    if present.images != spec.images:
        raise Refused(
            f"The VM {spec.name} on the simulator was made from another version.",
            code="PATH_CONFLICT",
            action="Recreate it, or use another name.",
        )
    return describe(store, present)


def remake(store: Store, spec: CloneSpec) -> VM:
    """Give a guest new disks: it is stopped, swapped and started again in one change of the index."""
    files.check_name(spec.name)
    with store.change() as index:
        present = _present(index, GUESTS, spec.name, spec.mark)
    if present is None:
        return make(store, GUESTS, spec)
    with _disks(store, spec) as disks, store.change() as index:
        old = _present(index, GUESTS, spec.name, spec.mark)
        base = old or Machine(files.token(), spec.name, (), spec.definition)
        new = replace(base, blobs=disks, definition=spec.definition, mark=spec.mark, images=spec.images)
        others = tuple(machine for machine in index.guests if machine is not old)
        index.guests = (*others, new)
        index.trash += tuple(blob.id for blob in base.blobs)
        _made(index, disks)
    return describe(store, new)


def delete(store: Store, room: str, name: str, mark: Mark) -> None:
    """Delete a VM of ours with its disks."""
    files.check_name(name)
    with store.change() as index:
        if (present := _present(index, room, name, mark, "NOT_OURS")) is not None:
            _put(index, room, tuple(machine for machine in _all(index, room) if machine is not present))
            index.trash += tuple(blob.id for blob in present.blobs)


def switch(store: Store, name: str, mark: Mark, on: bool) -> None:
    """Start or stop a guest or working copy."""
    files.check_name(name)
    room = VMS if mark.kind == "working-copy" else GUESTS
    with store.change() as index:
        present = _present(index, room, name, mark, "NOT_OURS")
        if present is None:
            raise Missing(f"There is no VM {name} on the simulator.", action="Recreate it.")
        changed = replace(present, power="on" if on else "off")
        _put(index, room, tuple(changed if each is present else each for each in _all(index, room)))


def users(index: Index, image: str) -> list[str]:
    """Return the names of the VMs that have an image as the base of a disk."""
    machines = (*index.guests, *index.vms)
    return [
        files.shown(machine.name) for machine in machines if image in {blob.base for blob in machine.blobs}
    ]


def describe(store: Store, machine: Machine, *, stands_alone: bool = False) -> VM:
    """Return what the contract says of a VM; what is wrong with its disks is its problem."""
    disks, problems = [], []
    for number, blob in enumerate(machine.blobs):
        try:
            disks.append(_disk(store, blob, f"disk{number}.{blob.format}", stands_alone))
        except OSError as error:
            problems.append(f"Disk {number} can not be read: {os.strerror(error.errno or 0)}.")
        except Refused as error:
            problems.append(f"Disk {number}: {error.text}")
    definition = machine.definition
    return VM(
        machine.id,
        files.shown(machine.name),
        tuple(disks),
        definition.memory_mib,
        definition.vcpus,
        files.shown(definition.network),
        machine.power,
        machine.mark,
        " ".join(problems),
    )


def _disk(store: Store, blob: Blob, name: str, stands_alone: bool) -> Disk:
    fd = store.blobs.open(blob.id)
    try:
        found = os.fstat(fd)
        if stands_alone:
            size = qcow2.virtual_size(fd, blob.format)
        else:
            size = qcow2.read_header(fd).virtual_size if blob.format == "qcow2" else found.st_size
        return Disk(blob.id, name, blob.format, found.st_size, size, found.st_blocks * 512)
    finally:
        os.close(fd)


@contextmanager
def _disks(store: Store, spec: CloneSpec) -> Iterator[tuple[Blob, ...]]:
    """Make the disks of a VM and hold them until they belong to one; after a fault they are swept."""
    try:
        with ExitStack() as held:
            pairs = zip(spec.images, spec.formats, strict=True)
            disks = tuple(_make_disk(store, ref, form, spec.linked, held) for ref, form in pairs)
            store.blobs.sync()
            yield disks
    except BaseException:
        store.tidy()
        raise


def _make_disk(store: Store, ref: str, form: str, linked: bool, held: ExitStack) -> Blob:
    blob = files.token()
    with store.change() as index:
        image = _image(store, index, ref)
        origin = store.blobs.open(image.id)
        held.callback(os.close, origin)
        qcow2.virtual_size(origin, form)
        index.making += (blob,)
        store.save(index)
        fd = store.new_blob(blob)
        held.callback(os.close, fd)
        if linked:
            qcow2.overlay(store.blobs, blob, image.id, form)
    if not linked:
        blocks.copy(origin, fd)
    return Blob(blob, "qcow2", image.id) if linked else Blob(blob, form)


def _image(store: Store, index: Index, ref: str) -> Held:
    held = next((image for image in index.images if image.id == ref), None)
    if held is None or store.blobs.stat(ref) is None:
        raise Missing(
            "The image is not on the simulator any more.",
            code="CONTENT_LOST",
            action="Retry the distribution to this host first.",
        )
    if held.stamp != store.stamp(ref):
        raise changed(held)
    return held


def changed(image: Held) -> Refused:
    return Refused(
        f"The image {files.shown(image.name)} on the simulator was changed since it was published.",
        code="CONTENT_CHANGED",
        action="Retry copies it again under a new name.",
    )


def _present(index: Index, room: str, name: str, mark: Mark, code: str = "PATH_CONFLICT") -> Machine | None:
    found = next((machine for machine in _all(index, room) if machine.name == name), None)
    if found is not None and not mark.owns(found.mark):
        raise Refused(
            f"The VM {name} on the simulator was not made by this template.",
            code=code,
            action="It was left alone. Rename it, or use another name.",
        )
    return found


def _made(index: Index, disks: tuple[Blob, ...]) -> None:
    done = {blob.id for blob in disks}
    index.making = tuple(blob for blob in index.making if blob not in done)


def _all(index: Index, room: str) -> tuple[Machine, ...]:
    return index.guests if room == GUESTS else index.vms


def _put(index: Index, room: str, machines: tuple[Machine, ...]) -> None:
    setattr(index, room, machines)
