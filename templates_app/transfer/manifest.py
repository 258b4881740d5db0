"""The manifest of a disk image: which leaves are not zero, and their digests. File format 1, see docs/formats.md.

The same content always gives the same file, however its holes were mapped, so a manifest is named after its digest.
"""

from __future__ import annotations

import errno
import mmap
import os
import struct
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import chain

from .digest import DIGEST, Table, disk_digest
from .events import SealedDisk
from .faults import own_disk_full
from .job import LARGEST_LEAF, SMALLEST_LEAF
from .plan import DataMap

VERSION = 1
SUFFIX = ".manifest"
MOST_LEAVES = (
    1 << 30
)  # 64 TiB in leaves of 64 KiB; whether the digest is right takes a while to compute for more
_MAGIC = b"rasweb-manifest\n"
_HEADER = struct.Struct("<16sII QQQ 32s")
_RUN = struct.Struct("<QQ")


class BadManifest(ValueError):
    """The file is no manifest of this format, or was damaged."""


class Manifest:
    """An opened manifest. Its digests stay in the file (mapped into memory)."""

    def __init__(self, data: DataMap, digests: memoryview, digest: str) -> None:
        self.data = data
        self.digests = digests
        self.digest = digest

    @property
    def size(self) -> int:
        return self.data.size

    @property
    def leaf_size(self) -> int:
        return self.data.leaf

    @property
    def allocated(self) -> int:
        """Bytes of leaves that are not zero."""
        return self.data.total()

    def table(self) -> Table:
        return Table(self.data, self.digests, known=True)

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Manifest:
        """Map a manifest and check all of it; :class:`BadManifest`, or OSError when it can not be opened."""
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            if os.fstat(descriptor).st_size < _HEADER.size:
                raise BadManifest("The manifest is too short.")
            view = memoryview(mmap.mmap(descriptor, 0, prot=mmap.PROT_READ))
        finally:
            os.close(descriptor)
        return cls(*_parse(view))


def _parse(view: memoryview) -> tuple[DataMap, memoryview, str]:
    magic, version, leaf, size, run_count, leaf_count, digest = _HEADER.unpack_from(view)
    if magic != _MAGIC or version != VERSION:
        raise BadManifest("The file is not a manifest of a known format.")
    body = _HEADER.size + run_count * _RUN.size
    if not SMALLEST_LEAF <= leaf <= LARGEST_LEAF or len(view) != body + leaf_count * DIGEST:
        raise BadManifest("The manifest is incomplete.")
    if size > leaf * MOST_LEAVES:
        raise BadManifest("The manifest is about a disk of an absurd size.")
    runs = list(_RUN.iter_unpack(view[_HEADER.size : body]))
    data = DataMap(runs, size, leaf)
    _check_runs(data, leaf_count)
    if disk_digest(data, view[body:]) != digest.hex():
        raise BadManifest("The manifest is damaged.")
    return data, view[body:], digest.hex()


def _check_runs(data: DataMap, leaf_count: int) -> None:
    position = -1
    for first, end in data.runs:
        if not position < first < end <= data.leaves:
            raise BadManifest("The manifest's map of data is out of order.")
        position = end
    if data.count != leaf_count:
        raise BadManifest("The manifest's map of data does not fit its digests.")


@contextmanager
def _room() -> Iterator[None]:
    """These files lie beside rasweb, not on the host that is read: a full disk is said accordingly."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise own_disk_full() from error
        raise


@_room()
def write_manifest(folder: str | os.PathLike[str], table: Table) -> SealedDisk:
    """Write the manifest of a disk whose leaves were all read to ``<digest>.manifest``, run by run.

    Side name, flush, rename, flush of the folder: the final name only ever holds a whole manifest. The table is gone
    through once for each section of the file, so that no copy of it is kept.
    """
    os.makedirs(folder, exist_ok=True)
    data = table.data
    digest = disk_digest(data, table.store)
    run_count = leaf_count = allocated = 0
    for run, _ in table.solid():
        start, stop = data.span(*run)
        run_count += 1
        leaf_count += run[1] - run[0]
        allocated += stop - start
    path = os.path.join(folder, digest + SUFFIX)
    side = f"{path}.{os.getpid()}.part"
    header = _HEADER.pack(_MAGIC, VERSION, data.leaf, data.size, run_count, leaf_count, bytes.fromhex(digest))
    runs = (_RUN.pack(*run) for run, _ in table.solid())
    digests = (part for _, part in table.solid())
    try:
        _write_flushed(side, chain((header,), runs, digests))
        os.rename(side, path)
    except BaseException:
        _remove_quietly(side)
        raise
    flush_folder(folder)
    return SealedDisk(data.size, allocated, digest, path, data.leaf)


def _write_flushed(path: str, parts: Iterable[bytes | memoryview]) -> None:
    with open(path, "wb") as file:
        file.writelines(parts)
        file.flush()
        os.fsync(file.fileno())


def _remove_quietly(path: str) -> None:
    with suppress(OSError):  # it was never made, or the folder is gone with it
        os.unlink(path)


def flush_folder(folder: str | os.PathLike[str]) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@_room()
def scratch_store(folder: str | os.PathLike[str], length: int) -> memoryview:
    """Memory for digests that are still being learned, backed by a nameless file instead of the process's own.

    Room for all of it is taken at once: a full disk is an error here, but ends the process where a page is touched.
    """
    if not length:
        return memoryview(bytearray())
    os.makedirs(folder, exist_ok=True)
    path = os.path.join(folder, f".learning.{os.getpid()}.{os.urandom(4).hex()}")
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.unlink(path)
        os.posix_fallocate(descriptor, 0, length)
        return memoryview(mmap.mmap(descriptor, length))
    finally:
        os.close(descriptor)
