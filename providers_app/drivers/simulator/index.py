"""The simulator's memory: one JSON file, replaced whole under a lock, and image files with opaque names."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from providers_app.drivers import files, wire
from providers_app.drivers.base import Definition, Mark
from providers_app.drivers.errors import Missing, Refused, Unreachable
from providers_app.drivers.files import Folder, Root

FILE, LOCK, BLOBS = "simulator.json", "lock", "blobs"
FORMAT = 1
_LARGEST = 16 << 20


@dataclass(frozen=True)
class Blob:
    """An image file. ``base`` is the id of the one it stands on."""

    id: str
    format: str
    base: str = ""


@dataclass(frozen=True)
class Machine:
    """A VM, guest or working copy. ``images`` are the ids it was made from."""

    id: str
    name: str
    blobs: tuple[Blob, ...]
    definition: Definition
    power: str = "off"
    mark: Mark | None = None
    images: tuple[str, ...] = ()


@dataclass(frozen=True)
class Held:
    """An image, published or staged; staged under its token as id. ``stamp`` is that of its file."""

    id: str
    name: str
    size: int
    mark: Mark | None
    stamp: str = ""


@dataclass
class Index:
    """All the simulator knows. ``making`` and ``trash`` are blobs that are not, or no more, part of anything."""

    host_id: str
    vms: tuple[Machine, ...] = ()
    guests: tuple[Machine, ...] = ()
    images: tuple[Held, ...] = ()
    staged: tuple[Held, ...] = ()
    making: tuple[str, ...] = ()
    trash: tuple[str, ...] = ()


class Store:
    """The open folder of a simulator."""

    def __init__(self, root: Root) -> None:
        self.root = root
        self.blobs: Folder = root.folder(BLOBS)
        self._saved: object = None

    def close(self) -> None:
        self.blobs.close()
        self.root.close()

    def read(self) -> Index:
        """Return the present state; Unreachable when there is none, which is how an empty mount point looks."""
        try:
            known = files.parse_json(self.root.read(FILE, _LARGEST))
            if not isinstance(known, dict) or known.pop("format", None) != FORMAT:
                raise ValueError("another format")
            index: Index = wire.rebuild(Index, known)
        except FileNotFoundError:
            raise Unreachable(
                f"The simulator at {self.root.path} has no state: it is not mounted.",
                action="Mount it, or add the host again.",
            ) from None
        except ValueError:
            raise Refused(
                f"The state of the simulator at {self.root.path} can not be read.",
                code="PREREQUISITE",
                action=f"Restore {FILE} from a backup.",
            ) from None
        return index

    def save(self, index: Index) -> None:
        """Write what has changed since it was read or saved; the caller holds the lock."""
        known = {"format": FORMAT, **wire.plain(index)}
        if known != self._saved:
            self.root.replace(FILE, json.dumps(known, indent=1).encode() + b"\n")
            self._saved = known

    @contextmanager
    def change(self) -> Iterator[Index]:
        """Hold the lock and the present state; what was changed is saved at the end, unless something was raised."""
        self.root.check_present()
        with self.root.lock(LOCK):
            index = self.read()
            self._saved = {"format": FORMAT, **wire.plain(index)}
            self._sweep(index)
            yield index
            self.save(index)
            self._sweep(index)

    def tidy(self) -> None:
        """Delete what belongs to nothing, forget what has no file."""
        with self.change():
            pass

    def _sweep(self, index: Index) -> None:
        kept = tuple(blob for blob in index.making if not self._remove_unheld(blob))
        images, staged = self._with_file(index.images), self._with_file(index.staged)
        for blob in index.trash:
            self.blobs.unlink(blob)
        index.trash, index.making, index.images, index.staged = (), kept, images, staged
        self.save(index)

    def _with_file(self, images: tuple[Held, ...]) -> tuple[Held, ...]:
        return tuple(image for image in images if self.blobs.stat(image.id))

    def _remove_unheld(self, blob: str) -> bool:
        fd = self.take(blob)
        if fd is None:
            return False
        self.blobs.unlink(blob)
        if fd >= 0:
            os.close(fd)
        return True

    def take(self, blob: str) -> int | None:
        """Open and lock a blob: its descriptor, -1 when there is no file, None while another process holds it."""
        try:
            fd = self.blobs.open(blob, os.O_RDWR)
        except FileNotFoundError:
            return -1
        if files.try_lock(fd):
            return fd
        os.close(fd)
        return None

    def new_blob(self, blob: str) -> int:
        """Make and lock the file of a blob that the saved index already names."""
        fd = self.blobs.open(blob, os.O_RDWR | os.O_CREAT | os.O_EXCL)
        files.try_lock(fd)
        return fd

    def stamp(self, blob: str) -> str:
        """Return the identity of a blob's content; SOURCE_MISSING when it is gone."""
        found = self.blobs.stat(blob)
        if found is None:
            raise Missing("The disk image is gone.", code="SOURCE_MISSING", action="Put it back, then retry.")
        return files.stamp_of(found)
