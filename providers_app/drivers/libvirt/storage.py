"""The storage pool of a host and its volumes: a typed face for libvirt's objects, and nothing of ours in it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from typing import Any
from xml.etree.ElementTree import Element

from providers_app.drivers import files
from providers_app.drivers.errors import Missing, Unreachable

from . import errors as faults
from . import xmltext
from .errors import errors

TYPES = ("dir", "fs", "netfs")
BUSY_SECONDS, BEGINNING_SECONDS, PATIENCE_SECONDS = 0.2, 1.0, 60.0
_RUNNING = 2
_PHYSICAL_SIZE = 1  # VIR_STORAGE_VOL_GET_PHYSICAL


@dataclass(frozen=True)
class Facts:
    """What a volume is now. ``size`` is the length of its file, ``capacity`` what a guest sees; bytes."""

    name: str
    path: str
    format: str
    size: int
    capacity: int
    allocated: int
    written: str
    backing: str = ""
    backing_format: str = ""

    @property
    def stamp(self) -> str:
        """The cheap identity of its content: size and time of the last write."""
        return f"{self.size}-{self.written}"


class Volume:
    """One volume. ``raw`` is libvirt's own object; ``name`` is empty where the file's name is not UTF-8.

    Hold ``opening`` to begin a stream: while a host begins one it refuses to begin another that writes.
    """

    def __init__(self, raw: Any, where: str) -> None:
        self.raw = raw
        self.opening = threading.Lock()
        self.name = _text(raw.name)
        self.where = where

    def errors(self) -> AbstractContextManager[None]:
        return errors(f"the volume {files.shown(self.name)}", self.where)

    def facts(self) -> Facts:
        """Ask the host, now. Missing when its file is gone, or when it or what it stands on is not named in UTF-8."""
        with self.errors():
            text = _text(lambda: self.raw.XMLDesc(0))
        if not text:
            raise Missing(
                f"The description of a volume of {self.where} is not UTF-8.", action="Rename its file."
            )
        return _facts(xmltext.parse(text))

    def path(self) -> str:
        with self.errors():
            return str(self.raw.path())

    def length(self) -> int:
        """Return the bytes that a raw one has now, allocated or not; Missing when its file is gone."""
        with self.errors():
            return int(self.raw.info()[1])

    def allocated(self) -> int:
        """Return the bytes it takes now; Missing when its file is gone."""
        with self.errors():
            return int(self.raw.info()[2])

    def delete(self) -> None:
        """Delete it; one that is gone is deleted. IN_USE while the host itself fills or copies it.

        A stream of whomever that begins at the same moment is waited for: see ``opening``.
        """
        import libvirt

        with self.errors():
            try:
                refusal = _patiently(lambda: files.do(self.raw.delete, 0), faults.in_use, BEGINNING_SECONDS)
            except libvirt.libvirtError as error:
                if not faults.gone(error):
                    raise
            else:
                if refusal is not None:
                    raise refusal


class Pool:
    """One pool of a connected host."""

    def __init__(self, connection: Any, name: str, where: str) -> None:
        self._where = where
        self.name = name
        self.connection = connection
        with self._errors():
            self._raw = connection.storagePoolLookupByName(name)
            known = xmltext.parse(str(self._raw.XMLDesc(0)))
            self.type = known.get("type", "")
            self.path = (known.findtext("target/path") or "").rstrip("/")

    def close(self) -> None:
        """Close the connection of a pool that has its own."""
        import libvirt

        with suppress(libvirt.libvirtError):
            self.connection.close()

    def active(self) -> bool:
        with self._errors():
            return bool(self._raw.isActive())

    def space(self) -> tuple[int, int]:
        """Return free and total bytes, as of the last refresh."""
        with self._errors():
            _, capacity, _, available = self._raw.info()
        return int(available), int(capacity)

    def refresh(self, seconds: float = BUSY_SECONDS) -> bool:
        """Let the host look at the folder anew; False when it was busy with copies of its own all the time.

        It can not look meanwhile, and still knows all that was made and deleted through it.
        """
        with self._errors():
            return _patiently(lambda: self._raw.refresh(0), faults.busy, seconds) is None

    def volume(self, name: str) -> Volume | None:
        """Look up a volume by its name, as of the last refresh."""
        import libvirt

        if not name or "/" in name or "\0" in name:
            return None
        with self._errors():
            try:
                return Volume(self._raw.storageVolLookupByName(name), self._where)
            except libvirt.libvirtError as error:
                if faults.gone(error):
                    return None
                raise

    def volumes(self) -> Mapping[str, Volume]:
        """Return all volumes by name, as of the last refresh; those whose names are no text left out."""
        with self._errors():
            found = [Volume(raw, self._where) for raw in self._raw.listAllVolumes(0)]
        named = filter(lambda volume: volume.name, found)
        return {volume.name: volume for volume in sorted(named, key=lambda volume: volume.name)}

    def create(
        self, name: str, size: int, form: str = "raw", backing: tuple[str, str] | None = None
    ) -> Volume:
        """Make a volume that takes no room yet; FileExistsError when the name is taken. ``backing``: path, format."""
        text = _description(name, size, form, backing)
        return self._made(name, lambda: files.do(self._raw.createXML, text, 0))

    def copy(self, name: str, form: str, origin: Volume) -> Volume:
        """Let the host copy a volume; FileExistsError when the name is taken."""
        text = _description(name, origin.facts().capacity, form, None)
        return self._made(name, lambda: files.do(self._raw.createXMLFrom, text, origin.raw, 0))

    def _made(self, name: str, make: Callable[[], Any]) -> Volume:
        import libvirt

        with errors(f"the volume {files.shown(name)}", self._where):
            try:
                return Volume(make(), self._where)
            except libvirt.libvirtError as error:
                if faults.code_of(error) == faults.STORAGE_VOL_EXIST:
                    raise FileExistsError(name) from None
                raise

    def _errors(self) -> AbstractContextManager[None]:
        return errors(f"the storage pool {files.shown(self.name)}", self._where)


def _patiently(
    call: Callable[[], object], passing: Callable[[Exception], bool], seconds: float
) -> Exception | None:
    """Call again while the host refuses for a ``passing`` reason, no longer than that; return the last refusal."""
    import libvirt

    deadline, pause = time.monotonic() + seconds, 0.05
    while True:
        try:
            call()
        except libvirt.libvirtError as error:
            if not passing(error):
                raise
            if time.monotonic() + pause > deadline:
                refusal: Exception = error
                return refusal
            time.sleep(pause)
            pause = min(1.0, pause * 2)
        else:
            return None


def everywhere(connection: Any, where: str) -> tuple[Sequence[Facts], Sequence[str]]:
    """Return what is known of every volume in every active pool of a host, after a look at their folders.

    Also which pools are busy with copies of their own, so that only what was made through libvirt is known of them.
    """
    import libvirt

    volumes, known, busy = list[Volume](), list[Facts](), list[str]()
    with errors("its storage pools", where):
        for pool in filter(_is_active, connection.listAllStoragePools(0)):
            try:
                pool.refresh(0)
            except libvirt.libvirtError as error:  # libvirt stops a pool whose folder is gone
                busy += [pool.name()] if faults.busy(error) else []
            volumes += [Volume(raw, where) for raw in pool.listAllVolumes(0)] if _is_active(pool) else []
    for volume in volumes:
        with suppress(Missing):
            known.append(volume.facts())
    return known, busy


def _is_active(pool: Any) -> bool:
    return bool(pool.isActive())


def path_of(connection: Any, pool: str, volume: str) -> str:
    """Return the path that a volume has, or would have were its pool started; of an unknown pool its name and that."""
    import libvirt

    try:
        known = xmltext.parse(str(connection.storagePoolLookupByName(pool).XMLDesc(0)))
    except libvirt.libvirtError as error:
        if faults.code_of(error) == faults.NO_STORAGE_POOL:
            return f"{pool}/{volume}"
        raise
    return f"{(known.findtext('target/path') or '').rstrip('/')}/{volume}"


def gone(name: str, where: str) -> Unreachable:
    """Return the fault of a pool whose folder is not what it was."""
    return Unreachable(
        f"The storage pool {files.shown(name)} of {where} does not hold what it held: "
        "its folder was moved away or is not mounted.",
        action="Mount it or put it back. If the pool is really new and empty, add the host again.",
    )


def _text(ask: Callable[[], object]) -> str:
    """Ask the library for a text; empty for one that is not UTF-8, as the name of a file may be."""
    try:
        return str(ask())
    except UnicodeDecodeError:
        return ""


def _facts(known: Element) -> Facts:
    form, below = known.find("target/format"), known.find("backingStore/format")
    return Facts(
        name=known.findtext("name") or "",
        path=known.findtext("target/path") or "",
        format=form.get("type", "") if form is not None else "",
        size=xmltext.number(known, "physical"),
        capacity=xmltext.number(known, "capacity"),
        allocated=xmltext.number(known, "allocation"),
        written=known.findtext("target/timestamps/mtime") or "",
        backing=known.findtext("backingStore/path") or "",
        backing_format=below.get("type", "") if below is not None else "",
    )


def _description(name: str, size: int, form: str, backing: tuple[str, str] | None) -> str:
    root = Element("volume")
    xmltext.add(root, "name", name)
    xmltext.add(root, "capacity", size, unit="bytes")
    xmltext.add(root, "allocation", 0)
    target = xmltext.add(root, "target")
    xmltext.add(target, "format", type=form)
    if backing:
        store = xmltext.add(root, "backingStore")
        xmltext.add(store, "path", backing[0])
        xmltext.add(store, "format", type=backing[1])
    return xmltext.write(root)
