"""The VMs of a host as libvirt knows them: found, described, marked, started and stopped."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from xml.etree.ElementTree import Element

from providers_app.drivers import files
from providers_app.drivers.base import VM, Disk
from providers_app.drivers.errors import DriverError, Missing, Refused

from . import definition, notes, storage, xmltext
from . import errors as faults
from .host import Host
from .notes import Note
from .storage import Facts, Pool, Volume

_INACTIVE = 2  # VIR_DOMAIN_XML_INACTIVE
_VALIDATE = 1  # VIR_DOMAIN_DEFINE_VALIDATE
_UNDEFINE = 1 | 2 | 4 | 16  # MANAGED_SAVE | SNAPSHOTS_METADATA | NVRAM | CHECKPOINTS_METADATA
_METADATA_ONLY = 2  # VIR_DOMAIN_SNAPSHOT_DELETE_METADATA_ONLY
_NAP = 0.2
_MAC = "devices/interface/mac"


@dataclass(frozen=True)
class Domain:
    """One VM: libvirt's object, its permanent definition, and our note in it, if any.

    ``problem`` is set where the definition can not be read; ``root`` then only says what the VM is called.
    """

    raw: Any
    root: Element
    note: Note | None
    running: bool
    problem: str = ""

    @property
    def name(self) -> str:
        return self.root.findtext("name") or ""

    @property
    def uuid(self) -> str:
        return self.root.findtext("uuid") or ""

    @property
    def mac(self) -> str:
        found = self.root.find(_MAC)
        return found.get("address", "") if found is not None else ""

    def is_ours(self, kind: str) -> bool:
        return self.note is not None and self.note.mark.kind == kind


def every(host: Host) -> Iterator[Domain]:
    """Yield all VMs of a host, those that vanish meanwhile left out."""
    with host.errors("its VMs"):
        found = host.connection.listAllDomains(0)
    for raw in found:
        try:
            yield _read(host, raw)
        except Missing:
            continue


def find(host: Host, name: str) -> Domain | None:
    import libvirt

    with host.errors(f"the VM {files.shown(name)}"):
        try:
            raw = host.connection.lookupByName(name)
        except libvirt.libvirtError as error:
            if faults.code_of(error) == faults.NO_DOMAIN:
                return None
            raise
    return _read(host, raw)


def _read(host: Host, raw: Any) -> Domain:
    with host.errors("a VM"):
        described = str(raw.XMLDesc(_INACTIVE))
        running = bool(raw.isActive())
    try:
        root = xmltext.parse(described)
    except DriverError:  # libvirt takes metadata that is not well formed
        return Domain(raw, _named(raw), None, running, "Its definition can not be read.")
    text = root.findtext(f"metadata/{{{definition.NAMESPACE}}}vm")
    return Domain(raw, root, notes.decode(text) if text else None, running)


def _named(raw: Any) -> Element:
    root = Element("domain")
    xmltext.add(root, "name", str(raw.name()))
    xmltext.add(root, "uuid", str(raw.UUIDString()))
    return root


def described(host: Host, found: Iterable[Domain], volumes: Mapping[str, Facts]) -> Iterator[VM]:
    """Describe VMs, those that vanish meanwhile left out."""
    for domain in found:
        try:
            yield describe(host, domain, volumes)
        except Missing:
            continue


def describe(host: Host, domain: Domain, volumes: Mapping[str, Facts]) -> VM:
    """Return what the contract says of a VM. ``volumes``: what is known of the pool's volumes, by path."""
    disks, strange = [], ""
    for drive in definition.drives(domain.root):
        facts = volumes.get(drive.path)
        if facts is None:
            strange = strange or (
                f"Its disk {files.shown(drive.target)} is not in the storage pool {host.pool.name}."
            )
        else:
            disks.append(_disk(facts, drive))
            if domain.note is None and facts.format != drive.format:
                strange = strange or f"Its disk {files.shown(drive.target)} is not what its definition says."
            if facts.backing and domain.note is None:
                strange = strange or f"Its disk {files.shown(drive.target)} stands on another image."
    note = domain.note
    label = files.shown(domain.name)
    if domain.name != label or len(domain.name) > 100:
        strange = strange or "Its name holds characters that are not used here."
    return VM(
        ref=domain.uuid,
        name=label,
        disks=tuple(disks),
        memory_mib=definition.memory_mib(domain.root),
        vcpus=xmltext.number(domain.root, "vcpu"),
        network=files.shown(definition.network_of(domain.root)),
        power="on" if domain.running else "off",
        mark=note.mark if note else None,
        problem=domain.problem
        or (definition.problem(domain.root) if note is None else "")
        or strange
        or _state(host, domain),
        hardware=definition.hardware_of(domain.root).encode(),
    )


def _disk(facts: Facts, drive: definition.Drive) -> Disk:
    return Disk(facts.name, facts.name, drive.format, facts.size, facts.capacity, facts.allocated)


def _state(host: Host, domain: Domain) -> str:
    """What is kept outside of the disks makes them only half of the truth, where an image is to be made of them."""
    if domain.running or domain.is_ours("guest"):
        return ""
    with host.errors("a VM"):
        if domain.raw.hasManagedSaveImage(0):
            return "It was not shut down but saved: start it and shut it down."
        if domain.raw.snapshotNum(0):
            return "It has snapshots: delete them first."
    return ""


def layers(pool: Pool, drive: definition.Drive) -> Iterator[tuple[str, Facts | None]]:
    """Yield the volumes of our pool that a disk consists of, the topmost first; the last is None where it is gone."""
    path, form, seen = drive.path, drive.format, set[str]()
    while path.rpartition("/")[0] == pool.path and path not in seen:
        seen.add(path)
        name = path.rpartition("/")[2]
        volume, facts = pool.volume(name), None
        with suppress(Missing):
            facts = volume.facts() if volume else None
        yield name, facts
        if facts is None or form == "raw":  # what a guest wrote to a raw disk says nothing of others
            return
        path, form = facts.backing, facts.backing_format


def format_of(host: Host, path: str) -> str:
    """Return the format that VMs take a file for; empty where none has it as a disk, or two disagree."""
    found = {
        drive.format
        for domain in every(host)
        for drive in definition.drives(domain.root)
        if drive.path == path
    }
    return found.pop() if len(found) == 1 else ""


@dataclass(frozen=True)
class Use:
    """The ``paths`` of all files that a VM uses; those of ``layered`` may stand on others that nobody names."""

    name: str
    paths: AbstractSet[str]
    layered: Sequence[str]


def in_use(host: Host) -> Iterator[Use]:
    """Yield what each VM uses, from permanent and running definitions."""
    for domain in every(host):
        if domain.problem:
            raise _unreadable(host, domain.name)
        used, layered = set(_paths(host, definition.sources(domain.root))), list[str]()
        if not domain.running:
            layered = list(_paths(host, definition.layered(domain.root)))
        else:
            try:
                with host.errors("a VM"):
                    text = str(domain.raw.XMLDesc(0))
            except Missing:
                continue
            except UnicodeDecodeError:
                raise _unreadable(host, domain.name) from None
            used |= set(_paths(host, definition.sources(xmltext.parse(text))))
        yield Use(domain.name, used, layered)


def _paths(host: Host, sources: Iterable[Element]) -> Iterator[str]:
    for source in sources:
        if path := source.get("file") or source.get("dev"):
            yield path
        elif (pool := source.get("pool")) and (volume := source.get("volume")):
            with host.errors("a VM"):
                yield storage.path_of(host.connection, pool, volume)


def _unreadable(host: Host, name: str) -> DriverError:
    return DriverError(
        f"Nobody can tell what the VM {files.shown(name)} on the host {host.where} uses: "
        "its definition can not be read.",
        action="Look at it there (virsh dumpxml): its metadata has to be well formed, its files named in UTF-8.",
    )


def define(host: Host, plan: definition.Plan) -> None:
    with host.errors(f"the VM {plan.name}"):
        files.do(host.connection.defineXMLFlags, definition.text(plan), _VALIDATE)


def undefine(host: Host, domain: Domain) -> None:
    """Forget a VM that is switched off, with all that libvirt keeps beside its disks."""
    import libvirt

    with host.errors(f"the VM {domain.name}"):
        try:
            files.do(domain.raw.undefineFlags, _UNDEFINE)
        except libvirt.libvirtError as error:
            if faults.code_of(error) != faults.NO_DOMAIN:
                raise


def forget_saved(host: Host, domain: Domain) -> None:
    """Drop what a VM that is off would wake up with or go back to: it belongs to disks that will be gone."""
    with host.errors(f"the VM {domain.name}"):
        if domain.raw.hasManagedSaveImage(0):
            files.do(domain.raw.managedSaveRemove, 0)
        for snapshot in domain.raw.listAllSnapshots(0):
            files.do(snapshot.delete, _METADATA_ONLY)


def start(host: Host, domain: Domain) -> None:
    import libvirt

    with host.errors(f"the VM {domain.name}"):
        try:
            if not domain.raw.isActive():
                files.do(domain.raw.create)
        except libvirt.libvirtError as error:
            if faults.gone(error) and (lost := _lost(host, domain)):
                raise Missing(
                    f"The VM {domain.name} can not start: {files.shown(lost)} is gone from the storage pool "
                    f"{host.pool.name} of {host.where}.",
                    code="CONTENT_LOST",
                    action="Put it back, or recreate the VM.",
                ) from error
            raise


def _lost(host: Host, domain: Domain) -> str:
    """Return the name of a volume that a VM's disks need and that is gone; empty where none is."""
    host.pool.refresh()
    found = (layer for drive in definition.drives(domain.root) for layer in layers(host.pool, drive))
    return next((name for name, facts in found if facts is None), "")


def ask_to_stop(host: Host, domain: Domain) -> None:
    import libvirt

    with host.errors(f"the VM {domain.name}"):
        try:
            if domain.raw.isActive():
                files.do(domain.raw.shutdown)
        except libvirt.libvirtError:
            if domain.raw.isActive():  # it may have ended between two questions
                raise


def stop(host: Host, domain: Domain, *, patience: float | None = None) -> None:
    """Ask a VM to shut down; after ``patience`` seconds, the host's own by default, switch it off."""
    import libvirt

    deadline = time.monotonic() + (host.shutdown_seconds if patience is None else patience)
    with host.errors(f"the VM {domain.name}"):
        try:
            if time.monotonic() < deadline:
                try:
                    files.do(domain.raw.shutdown)
                except libvirt.libvirtError:  # off already, or paused and listening to nobody
                    deadline = time.monotonic()
            while domain.raw.isActive() and time.monotonic() < deadline:
                time.sleep(_NAP)
            if domain.raw.isActive():
                files.do(domain.raw.destroy)
        except libvirt.libvirtError:
            if domain.raw.isActive():  # it may have ended between two questions
                raise


def facts_by_path(volumes: Mapping[str, Volume]) -> dict[str, Facts]:
    """Ask for all volumes at once; those that vanish meanwhile are left out."""
    found = {}
    for volume in volumes.values():
        try:
            facts = volume.facts()
        except Missing:
            continue
        found[facts.path] = facts
    return found


def foreign(host: Host, name: str, code: str) -> Refused:
    return Refused(
        f"The VM {name} on the host {host.where} was not made by this template.",
        code=code,
        action="It was left alone. Rename it, or use another name.",
    )
