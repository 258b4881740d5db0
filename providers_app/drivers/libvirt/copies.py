"""Filling a volume from another one of the pool by the host itself: no byte travels.

A host can copy volumes, but its copy begins like the disk it is going to be, long before it is whole. So it is given a
mask to copy: ``.V.mask``, a qcow2 image that stands on the other volume and has zeros in its first cluster. Whoever
looks at an unfinished ``V`` finds an empty disk, at any moment. The mask is there from before the copy until the copy
is whole; after a crash it says that nobody knows what ``V`` holds.

A host can not be told to stop. It goes on when its client gave up or died, and deletes nothing that it is filling.
"""

from __future__ import annotations

import struct
import threading
import time
from collections.abc import Callable
from contextlib import suppress

from providers_app.drivers import qcow2
from providers_app.drivers.errors import DriverError, Missing, NoSpace, Refused, Unreachable

from . import disks, downloads, notes, uploads
from .host import Host
from .storage import Pool, Volume

CLUSTER = 64 << 10
_CLUSTER_BITS = 16
_SECTOR = 512
_HEADER = struct.Struct(">4sIQIIQIIQ")
_LOOK_SECONDS = 0.5
_BEGIN_SECONDS = 20.0


def fill(host: Host, blank: Volume, size: int, origin: Volume, beat: Callable[[int], None]) -> bool:
    """Replace a blank volume by what a guest sees of ``origin``, all but the first cluster."""
    try:
        there = origin.facts()
        form = disks.format_of(host, there)
        fits = disks.check_header(host, origin, form) == size and size % _SECTOR == 0
    except (Missing, Refused):
        return False
    job = _begin(host, blank, size, (there.path, form)) if fits else None
    if job is None:
        return False
    fault = job.follow(host, beat)
    if fault is None:
        _end(host, blank.name, size)
    elif isinstance(fault, DriverError) and not isinstance(fault, (NoSpace, Unreachable)):
        _begin_anew(host, blank.name, size)
    else:
        raise fault
    return fault is None


def unfinished(pool: Pool, name: str) -> bool:
    """Tell whether a volume was left in the middle of such a copy, or still is in it."""
    return pool.volume(notes.of_mask(name)) is not None


class _Job:
    """One call that returns when the host is done, in a thread and on a connection of its own."""

    def __init__(self, pool: Pool, name: str) -> None:
        self._pool, self._name = pool, name
        self._ended = threading.Event()
        self._fault: BaseException | None = None
        threading.Thread(target=self._run, name="libvirt-copy", daemon=True).start()

    def _run(self) -> None:
        try:
            mask = self._pool.volume(notes.of_mask(self._name))
            if mask is not None:
                self._pool.copy(self._name, "raw", mask)
        except BaseException as error:  # noqa: BLE001 - raised again by whoever waits
            self._fault = error
        finally:
            self._ended.set()
            self._pool.close()

    def await_begin(self, host: Host) -> None:
        """Return when the volume is there, under the host's lock: from then on nobody sweeps what belongs to it."""
        deadline = time.monotonic() + _BEGIN_SECONDS
        while not self._ended.wait(0.01) and host.pool.volume(self._name) is None:
            if time.monotonic() > deadline:
                raise Unreachable(
                    f"The host {host.where} did not begin to copy.", code="TIMEOUT", action="Retry."
                )

    def follow(self, host: Host, beat: Callable[[int], None]) -> BaseException | None:
        """Return when the host is done, with what kept it from it. What ``beat`` raises leaves the host at work."""
        while not self._ended.wait(_LOOK_SECONDS):
            beat(_allocated(host, self._name))
        return self._fault


def _begin(host: Host, blank: Volume, size: int, origin: tuple[str, str]) -> _Job | None:
    apart = host.pool_apart()
    try:
        with host.lock():
            if not _mask(host, blank.name, size, origin):
                apart.close()
                return None
            blank.delete()
            job = _Job(apart, blank.name)
            job.await_begin(host)
    except BaseException:
        apart.close()
        raise
    return job


def _mask(host: Host, name: str, size: int, origin: tuple[str, str]) -> bool:
    """Make a qcow2 image that reads as ``origin`` (path, format) with zeros in its first cluster."""
    mask = host.pool.create(notes.of_mask(name), size, "qcow2", origin)
    header = memoryview(bytearray(_HEADER.size))
    downloads.get(host.connection, mask, 0, header)
    magic, _, _, _, bits, _, _, _, l1_at = _HEADER.unpack(header)
    if (magic, bits) != (qcow2.MAGIC, _CLUSTER_BITS):
        mask.delete()
        return False
    table_at = -(-mask.facts().size // CLUSTER) * CLUSTER
    table = (table_at + CLUSTER).to_bytes(8, "big").ljust(CLUSTER, b"\0")
    uploads.put(host.connection, mask, table_at, table + bytes(CLUSTER))
    uploads.put(host.connection, mask, l1_at, table_at.to_bytes(8, "big"))
    return True


def _allocated(host: Host, name: str) -> int:
    with suppress(Missing):
        volume = host.pool.volume(name)
        return volume.allocated() if volume else 0
    return 0


def _begin_anew(host: Host, name: str, size: int) -> None:
    """The host could not do it: leave a blank volume, as it was."""
    with host.lock():
        if (left := host.pool.volume(name)) is not None:
            left.delete()
        host.pool.create(name, size)
        _unmask(host, name)


def _end(host: Host, name: str, size: int) -> None:
    made = host.pool.volume(name)
    if made is None or made.facts().size != size:
        raise DriverError("The host's copy is not whole.", code="CHECKSUM_MISMATCH", action="Retry.")
    _unmask(host, name)


def _unmask(host: Host, name: str) -> None:
    if (mask := host.pool.volume(notes.of_mask(name))) is not None:
        mask.delete()
