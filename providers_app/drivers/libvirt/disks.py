"""Reading a disk image of a host, and writing one that nobody can take for a disk before it is whole."""

from __future__ import annotations

import threading
from collections.abc import Iterator

from providers_app.drivers import blocks, qcow2
from providers_app.drivers.base import Extent, Source
from providers_app.drivers.clusters import GuestContent
from providers_app.drivers.errors import Missing, Refused

from . import domains, downloads
from .downloads import Downloads
from .host import Host
from .storage import Facts, Volume


def check_header(host: Host, volume: Volume, form: str) -> int:
    """Check that an image stands alone and is of the format ``form``; return the size a guest sees.

    The header is read by us, before any tool of the host is trusted with the image.
    """

    def read(offset: int, length: int) -> bytes:
        buffer = memoryview(bytearray(max(0, min(length, size - offset))))
        return bytes(buffer[: downloads.get(host.connection, volume, offset, buffer)]) if buffer else b""

    size = volume.facts().size
    return qcow2.inspect(read, size, form).virtual_size


def open_disk(host: Host, volume: Volume) -> Source:
    """Open a disk of a VM, or a published image, as the raw disk that its guest sees.

    What a volume begins like decides nothing: a guest can write that into a raw disk. Its VM says what it is.
    """
    if format_of(host, volume.facts()) == "qcow2":
        return GuestContent(LibvirtSource(host, volume))
    check_header(host, volume, "raw")
    return LibvirtSource(host, volume)


def format_of(host: Host, facts: Facts) -> str:
    return "qcow2" if facts.format == domains.format_of(host, facts.path) == "qcow2" else "raw"


class LibvirtSource(Source):
    """A volume that is read: a disk of a VM, or a published image."""

    def __init__(self, host: Host, volume: Volume) -> None:
        self._host = host
        self._volume = volume
        self._downloads = Downloads(host.connection, volume)
        self.size = volume.facts().size

    def extents(self) -> Iterator[Extent]:
        runs = downloads.data_runs(self._host.connection, self._volume, 0, self.size)
        return blocks.alternating(runs, self.size)

    def expect(self, offset: int, length: int) -> None:
        self._downloads.expect(offset, min(length, self.size - offset))

    def read_into(self, offset: int, buffer: memoryview) -> int:
        wanted = max(0, min(len(buffer), self.size - offset))
        return self._downloads.read(offset, buffer[:wanted]) if wanted else 0

    def stamp(self) -> str:
        try:
            return self._volume.facts().stamp
        except Missing as error:
            raise source_missing(self._host, self._volume.name) from error

    def close(self) -> None:
        self._downloads.close()


def source_missing(host: Host, name: str) -> Missing:
    return Missing(
        f"The host {host.where} has no disk image {name} in its storage pool {host.pool.name}.",
        code="SOURCE_MISSING",
        action="Put it back, or choose another source.",
    )


class Blank:
    """A fresh volume, of which we know where it was written: everything else reads as zeros without being asked."""

    def __init__(self, *, known: bool) -> None:
        self.known = known
        self._runs: list[tuple[int, int]] = []
        self._lock = threading.Lock()

    def untouched(self) -> bool:
        with self._lock:
            return self.known and not self._runs

    def wrote(self, offset: int, length: int) -> None:
        with self._lock:
            if self._runs and sum(self._runs[-1]) == offset:
                self._runs[-1] = (self._runs[-1][0], self._runs[-1][1] + length)
            else:
                self._runs.append((offset, length))

    def within(self, offset: int, length: int) -> list[tuple[int, int]] | None:
        """Return the written runs in a range; None when nobody knows."""
        if not self.known:
            return None
        end = offset + length
        with self._lock:
            cut = [(max(start, offset), min(start + size, end)) for start, size in self._runs]
        return [(start, stop - start) for start, stop in cut if stop > start]


def changed(host: Host, name: str) -> Refused:
    return Refused(
        f"The image {name} on the host {host.where} was changed since it was published.",
        code="CONTENT_CHANGED",
        action="Retry copies it again under a new name.",
    )


def conflict(host: Host, name: str) -> Refused:
    return Refused(
        f"In the storage pool {host.pool.name} of {host.where} the name {name} is taken "
        "by something that is not this template's.",
        code="PATH_CONFLICT",
        action="Move the other volume away, then retry.",
    )
