"""Guest VMs and working copies: a folder made whole under a side name, then renamed into its place.

The side folder ``.NAME.TOKEN.new`` gets its mark first and loses it last, and its maker holds a lock on it. A swap
exchanges it with the present folder at one stroke, so that NAME always is one complete VM; what then carries the
side name is the old one. Where the file system can not exchange, the old folder is ``.NAME.TOKEN.old`` for a moment,
and whoever comes next puts it back.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from providers_app.drivers import blocks, files, qcow2
from providers_app.drivers.base import VM, CloneSpec, Mark
from providers_app.drivers.errors import Missing, Refused
from providers_app.drivers.files import Folder

from . import notes
from .errors import errors
from .images import changed
from .layout import Host
from .listing import DEFINITION, machine
from .notes import Note, Side


@dataclass(frozen=True)
class Room:
    """Where VMs of one sort lie. ``kind`` is the folder's name, ``noun`` what the administrator calls them."""

    host: Host
    folder: Folder
    kind: str
    noun: str

    def vm(self, name: str) -> VM:
        return machine(self.folder, name, self.kind)


def guests(host: Host) -> Room:
    return Room(host, host.guests, "guests", "guest VM")


def working_copies(host: Host) -> Room:
    return Room(host, host.vms, "vms", "working copy")


def make(room: Room, spec: CloneSpec) -> VM:
    """Make a VM, or return it when it is there already."""
    with _errors(room, spec.name):
        _tidy(room, spec.name, spec.mark)
        if _present(room, spec.name, spec.mark) is None:
            with _built(room, spec) as side, room.host.lock():
                if _present(room, spec.name, spec.mark) is None:
                    room.folder.rename(side.folder, spec.name)
                    room.folder.sync()
            _tidy(room, spec.name, spec.mark)
        note = _present(room, spec.name, spec.mark)
        if note is not None and note.images != spec.images:
            raise _taken(room, spec.name)
        return room.vm(spec.name)


def remake(room: Room, spec: CloneSpec) -> VM:
    """Put a VM made anew in the place of the present one; what was begun and cut short is finished."""
    with _errors(room, spec.name):
        swapped = _tidy(room, spec.name, spec.mark)
        note = _present(room, spec.name, spec.mark)
        if note is None:
            return make(room, spec)
        if swapped and note.images == spec.images:
            return room.vm(spec.name)
        with _built(room, spec) as side, room.host.lock():
            if _present(room, spec.name, spec.mark) is not None:
                _check_off(room, spec.name)
                _swap(room, side)
            else:
                room.folder.rename(side.folder, spec.name)
            room.folder.sync()
        _tidy(room, spec.name, spec.mark)
        return room.vm(spec.name)


def delete(room: Room, name: str, mark: Mark) -> None:
    """Delete a VM of ours with all its disks."""
    with _errors(room, name):
        _tidy(room, name, mark)
        with room.host.lock():
            if _present(room, name, mark, "NOT_OURS") is not None:
                _check_off(room, name)
                room.folder.rename(name, Side(name, files.token(), "gone").folder)
                room.folder.sync()
        _tidy(room, name, mark)


def _present(room: Room, name: str, mark: Mark, code: str = "PATH_CONFLICT") -> Note | None:
    """Return the note of a VM of ours, None where there is none; a fault with this code for a foreign one."""
    if room.folder.stat(name) is None:
        return None
    with room.folder.folder(name) as folder:
        note = notes.read(folder, notes.IN_FOLDER)
    if note is None or not mark.owns(note.mark):
        raise Refused(
            f"The VM {name} in {room.kind} of the host folder {room.host.path} was not made by this template.",
            code=code,
            action="It was left alone. Rename or move it, or use another name.",
        )
    return note


@contextmanager
def _built(room: Room, spec: CloneSpec) -> Iterator[Side]:
    """Make the whole VM under a side name and hold it; what is still there after a fault is removed."""
    with room.host.lock():
        side = Side(spec.name, files.token(), "new")
        note = Note(spec.mark, token=side.token, images=spec.images)
        room.folder.make_folder(side.folder)
        folder = room.folder.folder(side.folder)
        folder.create(notes.IN_FOLDER, note.encode())
        held = folder.open(notes.IN_FOLDER, os.O_RDWR)
        files.try_lock(held)
    try:
        _fill(room, folder, spec)
        yield side
    except BaseException:
        _remove(room, side.folder)
        raise
    finally:
        os.close(held)
        folder.close()


def _fill(room: Room, folder: Folder, spec: CloneSpec) -> None:
    disks = []
    for number, (ref, form) in enumerate(zip(spec.images, spec.formats, strict=True)):
        image = _image_name(room.host, ref)
        linked = "qcow2" if spec.linked else form
        name = f"disk{number}.{linked}"
        if spec.linked:
            with room.host.lock():
                os.close(_open_image(room.host, image, form))
                qcow2.overlay(folder, name, f"../../images/{image}", form)
        else:
            _copy(room.host, image, form, folder, name)
        _share(folder, name)
        disks.append({"file": name, "format": linked})
    known = {
        "memory_mib": spec.definition.memory_mib,
        "vcpus": spec.definition.vcpus,
        "network": spec.definition.network,
        "disks": disks,
        "version": spec.mark.version,
    }
    folder.create(DEFINITION, json.dumps(known, indent=1).encode() + b"\n")
    files.do(os.fchmod, folder.fd, 0o770)
    folder.sync()


def _share(folder: Folder, name: str) -> None:
    """Let the folder's group write a disk, whatever the umask: hypervisors run as another user."""
    fd = folder.open(name)
    try:
        files.do(os.fchmod, fd, 0o660)
    finally:
        os.close(fd)


def _copy(host: Host, image: str, form: str, folder: Folder, name: str) -> None:
    origin = _open_image(host, image, form)
    try:
        target = folder.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL)
        try:
            blocks.copy(origin, target)
        finally:
            os.close(target)
    finally:
        os.close(origin)


def _open_image(host: Host, image: str, form: str) -> int:
    """Open a published image for cloning: ours, unchanged, and what it is said to be."""
    try:
        fd = host.images.open(image)
    except FileNotFoundError:
        raise Missing(
            f"The image {image} is not on the host folder {host.path} any more.",
            code="CONTENT_LOST",
            action="Retry the distribution to this host first.",
        ) from None
    try:
        note = notes.read(host.images, notes.of_image(image))
        if note is None:
            raise Refused(
                f"The image {image} was not published by rasweb.",
                code="NOT_OURS",
                action="Retry the distribution.",
            )
        if note.stamp != files.stamp_of(os.fstat(fd)):
            raise changed(host, image)
        qcow2.virtual_size(fd, form)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _image_name(host: Host, ref: str) -> str:
    kind, _, name = ref.partition("/")
    if kind != "images":
        raise Missing(f"{files.shown(ref)} is no image of the host folder {host.path}.", code="CONTENT_LOST")
    return files.check_name(name)


def _swap(room: Room, side: Side) -> None:
    if room.folder.exchange(side.folder, side.name):
        return
    room.folder.rename(side.name, Side(side.name, side.token, "old").folder)
    room.folder.rename(side.folder, side.name)


def _tidy(room: Room, name: str, mark: Mark) -> bool:
    """Finish or undo what earlier calls for this VM left; tell whether a swap had taken place."""
    swapped, litter = False, []
    with room.host.lock():
        for side in list(notes.sides(room.folder, name)):
            if not _ours_and_free(room, side, mark):
                continue
            if side.state == "old" and room.folder.stat(name) is None:
                room.folder.rename(side.folder, name)
                room.folder.sync()
                continue
            swapped = swapped or side.token == _token(room, name)
            litter.append(side.folder)
    for folder in litter:
        _remove(room, folder)
    return swapped


def _ours_and_free(room: Room, side: Side, mark: Mark) -> bool:
    """Tell whether a side folder is ours and held by nobody; one with no mark yet, or no more, when it is empty."""
    try:
        with room.folder.folder(side.folder) as folder:
            note, found = notes.read(folder, notes.IN_FOLDER), folder.stat(notes.IN_FOLDER)
            if found is None or not found.st_size:
                return set(folder.names()) <= {notes.IN_FOLDER}
            return note is not None and mark.owns(note.mark) and _free(folder)
    except (FileNotFoundError, NotADirectoryError):
        return False


def _free(folder: Folder) -> bool:
    held = folder.open(notes.IN_FOLDER, os.O_RDWR)
    try:
        return files.try_lock(held)
    finally:
        os.close(held)


def _token(room: Room, name: str) -> str:
    if room.folder.stat(name) is None:
        return ""
    with room.folder.folder(name) as folder:
        note = notes.read(folder, notes.IN_FOLDER)
    return note.token if note else ""


def _remove(room: Room, name: str) -> None:
    """Delete a side folder, its mark last."""
    try:
        with room.folder.folder(name) as folder:
            folder.clear(last=notes.IN_FOLDER)
    except FileNotFoundError:
        return
    room.folder.remove_folder(name)
    room.folder.sync()


def _check_off(room: Room, name: str) -> None:
    if room.vm(name).power == "on":
        raise Refused(
            f"The {room.noun} {name} is running.",
            code="IN_USE",
            action="Shut it down with the hypervisor's tools, then retry.",
        )


def _taken(room: Room, name: str) -> Refused:
    return Refused(
        f"The {room.noun} {name} in the host folder {room.host.path} was made from another version.",
        code="PATH_CONFLICT",
        action="Recreate it, or use another name.",
    )


@contextmanager
def _errors(room: Room, name: str) -> Iterator[None]:
    files.check_name(name)
    with errors(f"the {room.noun} {name}", room.host.path):
        yield
