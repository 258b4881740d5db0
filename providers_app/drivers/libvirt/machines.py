"""Guest VMs and working copies: disks first, then the definition, old disks last.

Before a volume is made or a VM is changed there is an order, the note ``.NAME.TOKEN.vm.json``: it names the volumes
that are being made and those that will be deleted. A definition carries the token of the order that made it, so
whoever comes after a crash knows which of the two sets of disks is the real one. Redefining is the one step that
swaps them, and libvirt does it whole or not at all.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import takewhile

from providers_app.drivers import files
from providers_app.drivers.base import VM, CloneSpec, Mark
from providers_app.drivers.errors import DriverError, Missing, Refused

from . import definition, disks, domains, images, locks, networks, notes
from .domains import Domain
from .host import Host
from .notes import Note
from .storage import Facts, Volume
from .uses import Uses


@dataclass(frozen=True)
class Base:
    """A published image that a disk is made of. ``size`` is what a guest will see."""

    volume: Volume
    path: str
    format: str
    size: int


def make(host: Host, spec: CloneSpec) -> VM:
    """Make a VM, or return it when it is there already."""
    files.check_name(spec.name)
    networks.check(host, spec.definition.network)
    with host.lock():
        _tidy(host, spec.name, spec.mark)
        present = _free_or_ours(host, spec.name, spec.mark)
    if present is None:
        return _build(host, spec, None)
    if present.note and present.note.images != spec.images:
        raise _taken(host, spec.name)
    return described(host, spec.name)


def remake(host: Host, spec: CloneSpec) -> VM:
    """Give a VM new disks. It keeps its name, UUID and network address, and runs again if it ran."""
    files.check_name(spec.name)
    networks.check(host, spec.definition.network)
    with host.lock():
        finished, owed = _tidy(host, spec.name, spec.mark)
        present = _free_or_ours(host, spec.name, spec.mark)
    if present and present.note and finished and present.note.images == spec.images:
        return described(host, spec.name)
    return _build(host, spec, present, owed)


def delete(host: Host, name: str, mark: Mark) -> None:
    """Delete a VM of ours with all its disks, running or not."""
    files.check_name(name)
    with host.lock():
        present = _present(host, name, mark)
        if present is None:
            _tidy(host, name, mark)
            return
    _check_unused(host, present)
    with _ordered(host, Note(mark, name, token=files.token(), old=_volumes(host, present))):
        domains.stop(host, present, patience=0)
        domains.undefine(host, present)
    with host.lock():
        _tidy(host, name, mark)


def switch(host: Host, name: str, mark: Mark, on: bool) -> None:
    present = _there(host, name, mark)
    domains.start(host, present) if on else domains.stop(host, present)


def shut_down(host: Host, name: str, mark: Mark, *, force: bool) -> None:
    """Pass it on to the guest system and return, or switch off what does not listen."""
    present = _there(host, name, mark)
    domains.stop(host, present, patience=0) if force else domains.ask_to_stop(host, present)


def _there(host: Host, name: str, mark: Mark) -> Domain:
    files.check_name(name)
    present = _present(host, name, mark)
    if present is None:
        raise Missing(f"There is no VM {name} on the host {host.where}.", action="Recreate it.")
    return present


def described(host: Host, name: str) -> VM:
    present = domains.find(host, name)
    if present is None:
        raise Missing(f"There is no VM {name} on the host {host.where} any more.", action="Retry.")
    return domains.describe(host, present, _facts_of(host, present))


def _facts_of(host: Host, domain: Domain) -> dict[str, Facts]:
    names = _disks(host, domain)
    return domains.facts_by_path({name: volume for name in names if (volume := host.pool.volume(name))})


def _present(host: Host, name: str, mark: Mark) -> Domain | None:
    """Return a VM of ours, None where there is none; NOT_OURS for a foreign one."""
    found = domains.find(host, name)
    if found is not None and (found.note is None or not mark.owns(found.note.mark)):
        raise domains.foreign(host, name, "NOT_OURS")
    return found


def _free_or_ours(host: Host, name: str, mark: Mark) -> Domain | None:
    """Return what :func:`_present` does; for whoever wants to make a VM, a foreign one is a PATH_CONFLICT."""
    try:
        return _present(host, name, mark)
    except Refused as refused:
        raise domains.foreign(host, name, "PATH_CONFLICT") from refused


def _build(host: Host, spec: CloneSpec, old: Domain | None, owed: Sequence[Note] = ()) -> VM:
    """Make a VM, or make it anew. ``owed``: orders whose VM would not start; this one takes over what they left."""
    if old is not None:
        _check_unused(host, old)
    bases = [_base(host, ref, form) for ref, form in zip(spec.images, spec.formats, strict=True)]
    token = files.token()
    names = [_disk_name(spec, number, base, token) for number, base in enumerate(bases)]
    order = Note(
        spec.mark,
        spec.name,
        token=token,
        images=spec.images,
        volumes=tuple(names),
        old=(*(_volumes(host, old) if old else ()), *(name for order in owed for name in order.old)),
        ran=old is not None and (old.running or any(order.ran for order in owed)),
    )
    with _ordered(host, order):
        made = [_make_disk(host, spec, *pair) for pair in zip(names, bases, strict=True)]
        if old is not None:
            domains.stop(host, old)
            domains.forget_saved(host, old)
        with host.lock():
            _define(host, spec, order, made, old)
        if order.ran and (new := domains.find(host, spec.name)):
            domains.start(host, new)
    with host.lock():
        _tidy(host, spec.name, spec.mark)
    return described(host, spec.name)


def _define(
    host: Host, spec: CloneSpec, order: Note, made: Sequence[tuple[str, str]], old: Domain | None
) -> None:
    now = _free_or_ours(host, spec.name, spec.mark)
    if _made(now) != _made(old):
        raise _taken(host, spec.name)
    network = host.network or spec.definition.network
    plan = definition.Plan(
        spec.name,
        replace(order, old=(), ran=False).encode(),
        replace(spec.definition, network=network),
        made,
        kind=_kind(host, spec),
        bridge=networks.is_bridge(host, network),
        uuid=old.uuid if old else "",
        mac=old.mac if old else "",
    )
    domains.define(host, plan)


def _made(domain: Domain | None) -> tuple[str, str] | None:
    """Tell a VM from others, and from itself once somebody has made it anew."""
    return (domain.uuid, domain.note.token) if domain and domain.note else None


def _kind(host: Host, spec: CloneSpec) -> str:
    """The way of running that the template was installed with; where it does not say, the best there is."""
    wanted = definition.hardware(spec.definition.hardware).type
    return wanted or ("kvm" if "kvm" in host.kinds else "qemu")


def _base(host: Host, ref: str, form: str) -> Base:
    """Return a published image for cloning: ours, unchanged, and what it is said to be."""
    host.pool.refresh()
    note = next((note for note in images.published(host.pool) if note.volume == ref), None)
    volume = host.pool.volume(ref) if note else None
    if note is None or volume is None:
        raise Missing(
            f"The image {files.shown(ref)} is not on the host {host.where} any more.",
            code="CONTENT_LOST",
            action="Retry the distribution to this host first.",
        )
    facts = volume.facts()
    if facts.stamp != note.stamp:
        raise disks.changed(host, note.name)
    return Base(volume, facts.path, form, disks.check_header(host, volume, form))


def _disk_name(spec: CloneSpec, number: int, base: Base, token: str) -> str:
    return f"{spec.name}.disk{number}.{token[:12]}.{'qcow2' if spec.linked else base.format}"


def _make_disk(host: Host, spec: CloneSpec, name: str, base: Base) -> tuple[str, str]:
    """Make a disk; return its path and format. A linked one always says what it stands on, and is never smaller."""
    if spec.linked:
        size = -(-base.size // 512) * 512
        with host.lock():
            base.volume.facts()  # nobody deletes it from here on: the new disk will be seen to stand on it
            made = host.pool.create(name, size, "qcow2", (base.path, base.format))
        return made.path(), "qcow2"
    return host.pool.copy(name, base.format, base.volume).path(), base.format


@contextmanager
def _ordered(host: Host, order: Note) -> Iterator[None]:
    """Keep an order while it is carried out; after a fault what was made is removed."""
    held = locks.take(host.id, order.token)
    try:
        with host.lock():
            notes.write(host.pool, notes.of_order(order.name, order.token), order.encode())
        yield
    except Exception:
        if held:
            held.close()
        with host.lock():
            _tidy(host, order.name, order.mark)
        raise
    finally:
        if held:
            held.close()


def _tidy(host: Host, name: str, mark: Mark) -> tuple[bool, Sequence[Note]]:
    """Finish or undo what earlier orders for this VM left.

    Tell whether one had come as far as its definition, and which are owed as they are: VMs that would not start.
    """
    host.pool.refresh()
    finished, owed = False, list[Note]()
    for owner, volume in list(notes.orders(host.pool.volumes())):
        if owner != name:
            continue
        order = notes.read(host.pool, volume)
        unfinished = order is None and notes.unfinished(host.pool, volume)
        if unfinished or (order and mark.owns(order.mark) and order.name == name):
            done = _settle(host, name, order)
            finished = finished or done is True
            if done is not None:
                volume.delete()
            elif order:
                owed.append(order)
    return finished, owed


def _settle(host: Host, name: str, order: Note | None) -> bool | None:
    """Delete the disks that an order made for nothing, or the old ones, after the VM that ran runs again.

    None, and nothing is, while its maker is at work or the VM does not start.
    """
    if order is None:
        return False
    held = locks.take(host.id, order.token)
    if held is None:
        return None
    try:
        present = domains.find(host, name)
        note = present.note if present else None
        done = note is not None and note.token == order.token
        ours = present if note and order.mark.owns(note.mark) else None
        if ours and order.ran and not _started(host, ours):
            return None
        keep = set(_disks(host, present)) if present else set()
        for unused in order.old if done else order.volumes if present else (*order.old, *order.volumes):
            found = host.pool.volume(unused)
            if unused not in keep and found is not None:
                found.delete()
        return done
    finally:
        held.close()


def _started(host: Host, domain: Domain) -> bool:
    """Start a VM. One that can not be started must not keep anybody from deleting it or making it anew."""
    try:
        domains.start(host, domain)
    except DriverError:
        return False
    return True


def _volumes(host: Host, domain: Domain) -> tuple[str, ...]:
    """Names of the volumes that were made for a VM of ours, and of its snapshots, which are nothing without them.

    Others that it was given since are not ours to delete.
    """
    note, found = domain.note, dict[str, None]()
    if note is None:
        return ()
    made = note.volumes or tuple(filter(_pattern(note).fullmatch, _disks(host, domain)))
    for drive in definition.drives(domain.root):
        layers = [name for name, _ in domains.layers(host.pool, drive)]
        above = list(takewhile(lambda name: name not in made, layers))
        if len(above) < len(layers):
            found |= dict.fromkeys(above)
    return (*found, *made)


def _pattern(note: Note) -> re.Pattern[str]:
    """Return what the disks of a VM are called; the first notes did not name them."""
    return re.compile(rf"{re.escape(note.name)}\.disk\d+\.[0-9a-f]{{12}}\.(qcow2|raw)")


def _check_unused(host: Host, domain: Domain) -> None:
    """Refuse to delete the disks of a VM as long as anything else stands on them or uses them."""
    uses, own = Uses.on(host), _volumes(host, domain)
    for name in own:
        volume = host.pool.volume(name)
        others = set(uses.of(volume.path())) - {*map(files.shown, (domain.name, *own))} if volume else set()
        if others:
            raise Refused(
                f"The disk {files.shown(name)} of the VM {domain.name} on the host {host.where} is used by: "
                f"{', '.join(sorted(others)[:5])}.",
                code="IN_USE",
                action="Delete these first.",
            )


def _disks(host: Host, domain: Domain) -> tuple[str, ...]:
    """Names of the volumes of our pool that a VM has as its disks."""
    paths = [drive.path.rpartition("/") for drive in definition.drives(domain.root)]
    return tuple(name for folder, _, name in paths if folder == host.pool.path)


def _taken(host: Host, name: str) -> Refused:
    return Refused(
        f"The VM {name} on the host {host.where} is there already, made from another version.",
        code="PATH_CONFLICT",
        action="Recreate it, or use another name.",
    )
