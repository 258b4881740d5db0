"""A connected host: its identity, its pool, and the marker that tells a mounted pool from an empty folder."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from contextlib import AbstractContextManager, suppress
from typing import Any
from xml.etree.ElementTree import Element

from providers_app.drivers import files
from providers_app.drivers.errors import DriverError, Missing, Refused, Unreachable

from . import connection, locks, notes, storage, uri, xmltext
from .errors import errors
from .fields import SHUTDOWN_SECONDS
from .storage import Pool


class Host:
    """One host. ``id`` is the UUID of the machine, the same however it is reached; ``kinds`` of VMs it can run."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self.where = uri.label(settings)
        self.network = str(settings.get("network") or "")
        patience = settings.get("shutdown_seconds")
        self.shutdown_seconds = float(SHUTDOWN_SECONDS if patience in (None, "") else patience)
        self._uri = uri.build(settings)
        self.connection = connection.connect(self._uri, self.where)
        try:
            self.capabilities = self._described()
            self.id, self.kinds = self._identity()
            self.pool = Pool(self.connection, str(settings.get("pool") or ""), self.where)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        import libvirt

        with suppress(libvirt.libvirtError):
            self.connection.close()

    def pool_apart(self) -> Pool:
        """Return the pool by a connection of its own, for a call that blocks; its user closes it."""
        return Pool(connection.connect(self._uri, self.where), self.pool.name, self.where)

    def lock(self) -> AbstractContextManager[None]:
        """Hold while names are checked and changed. Never during work that takes as long as an image is large."""
        return locks.holding(self.id, self.pool.name)

    def errors(self, what: str) -> AbstractContextManager[None]:
        return errors(what, self.where)

    def check_known(self, expected: str) -> None:
        """Raise when this is not the host that was registered, or its pool is not the one it was."""
        if expected and expected != self.id:
            raise Unreachable(
                f"Another host than before answers at {self.where}.",
                action="Correct the address, or add the other host as a provider of its own.",
            )
        self.check_usable()
        if expected:
            self.check_present()

    def check_usable(self) -> None:
        """Raise when the pool is stopped, or of a type that holds no files."""
        if self.pool.type not in storage.TYPES:
            raise Refused(
                f"The storage pool {self.pool.name} of {self.where} is of the type {self.pool.type}.",
                code="PREREQUISITE",
                action="Use a pool of the type dir, fs or netfs: images and linked clones are files.",
            )
        if not self.pool.active():
            raise Unreachable(
                f"The storage pool {self.pool.name} of {self.where} is not started.",
                action=f"Start it: virsh pool-start {self.pool.name}; and let it start by itself: pool-autostart.",
            )

    def check_present(self) -> None:
        """Raise Unreachable when the pool's folder does not hold our marker any more.

        A host that looked at its folder while that was away knows none of its files, and looks again only when told.
        """
        if self.pool.volume(notes.MARKER) is None:
            self._look_again()
        if (found := self._marked()) != self.id:
            raise storage.gone(self.pool.name, self.where) if not found else self._shared()

    def _look_again(self) -> None:
        """Let the host look at the pool's folder, if there is one.

        It would stop a pool whose folder is gone, and nobody would start it when that is back. So first something is
        made there, and deleted.
        """
        with suppress(DriverError):
            self.pool.create(f".rasweb-{files.token()}", 0).delete()
            self.pool.refresh()

    def register(self) -> None:
        """Put the marker into the pool."""
        self.check_usable()
        self.pool.refresh()
        with self.lock():
            found = self._marked()
            if found and found != self.id:
                raise self._shared()
            if not found:
                self._clear_marker()
                notes.write(self.pool, notes.MARKER, json.dumps({"format": notes.FORMAT, "host": self.id}))

    def _clear_marker(self) -> None:
        """Delete a marker that was never filled; PATH_CONFLICT for anything else of that name."""
        left = self.pool.volume(notes.MARKER)
        if left is not None and not notes.unfinished(self.pool, left):
            raise Refused(
                f"In the storage pool {self.pool.name} of {self.where} the file {notes.MARKER} can not be read.",
                code="PATH_CONFLICT",
                action="Look at it; move it away by hand if it is not needed.",
            )
        if left is not None:
            left.delete()

    def _marked(self) -> str:
        """Return the host that the pool's marker names; empty where there is none."""
        marker = self.pool.volume(notes.MARKER)
        with suppress(Missing, ValueError, KeyError, TypeError):
            if marker is not None:
                return str(uuid.UUID(files.parse_json(notes.text_of(self.pool, marker).encode())["host"]))
        return ""

    def _shared(self) -> DriverError:
        return Refused(
            f"The storage pool {self.pool.name} of {self.where} belongs to another host.",
            code="PREREQUISITE",
            action="Give each host a pool with a folder of its own; a shared one would be filled twice.",
        )

    def _described(self) -> Element:
        with self.errors("its description"):
            return xmltext.parse(str(self.connection.getCapabilities()))

    def _identity(self) -> tuple[str, tuple[str, ...]]:
        found = self.capabilities.findtext("host/uuid") or ""
        kinds = {kind.get("type", "") for kind in self.capabilities.iterfind("guest/arch/domain")}
        try:
            return str(uuid.UUID(found)), tuple(sorted(kinds))
        except ValueError:
            raise Refused(
                f"The host {self.where} has no UUID.",
                code="PREREQUISITE",
                action="Set host_uuid in /etc/libvirt/libvirtd.conf there.",
            ) from None
