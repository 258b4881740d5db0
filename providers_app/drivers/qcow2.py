"""What an image file says of itself, read by us before any tool opens it; and the one tool, for linked clones."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
from collections.abc import Callable
from dataclasses import dataclass

from rasweb import processes

from . import files
from .errors import Refused
from .files import Folder

MAGIC = b"QFI\xfb"
LARGEST = 64 << 40
FORMATS = ("raw", "qcow2")
ZLIB, ZSTD = 0, 1
_OTHER_FORMATS = {
    MAGIC: "qcow2",
    b"KDMV": "VMDK",
    b"vhdxfile": "VHDX",
    b"conectix": "VHD",
    b"QED\0": "QED",
    b"LUKS\xba\xbe": "LUKS",
}
_DIRTY, _CORRUPT, _DATA_FILE = 1, 2, 4
_COMPRESSION, _EXTENDED_L2 = 8, 16
_KNOWN = _DIRTY | _CORRUPT | _DATA_FILE | _COMPRESSION | _EXTENDED_L2
_EXT_DATA_FILE = 0x44415441
_SUBCLUSTERED = 14
_TOOL = "qemu-img"
_TOOL_SECONDS = 60


Read = Callable[[int, int], bytes]


@dataclass(frozen=True)
class Header:
    """The header of a disk image. ``virtual_size`` in bytes; ``backing`` is empty for an image that stands alone.

    ``cluster_bits``, ``l1_entries`` and ``l1_at`` say where the tables of a qcow2 image are, see :mod:`.clusters`.
    """

    virtual_size: int
    backing: str = ""
    data_file: bool = False
    encrypted: bool = False
    incompatible: int = 0
    version: int = 3
    cluster_bits: int = 16
    l1_entries: int = 0
    l1_at: int = 0
    compression: int = ZLIB

    @property
    def extended(self) -> bool:
        """Whether clusters are divided into subclusters."""
        return bool(self.incompatible & _EXTENDED_L2)


def refused(why: str, action: str = "") -> Refused:
    """Return the fault of an image that can not be used."""
    return Refused(
        f"The disk image {why}.", code="PREREQUISITE", action=action or "Convert it to a plain image first."
    )


def virtual_size(fd: int, form: str) -> int:
    """Check that an image of format ``form`` stands alone and is what it says; return the size a guest sees."""
    return inspect(_reading(fd), os.fstat(fd).st_size, form).virtual_size


def inspect(read: Read, length: int, form: str) -> Header:
    """Check an image of ``length`` bytes as :func:`virtual_size` does; ``read`` gets an offset and a length."""
    if not length:
        raise refused("is empty", "Replace it by a real disk image.")
    if form == "raw":
        check_raw(read(0, 8), "is named raw but")
        return Header(length)
    header = parse_header(read, length)
    _check_stands_alone(header)
    if header.virtual_size > LARGEST:
        raise refused("says it is larger than 64 TiB", "Check the image; it is damaged or not meant for use.")
    return header


def read_header(fd: int) -> Header:
    """Parse the header of a qcow2 image; PREREQUISITE when it makes no sense."""
    return parse_header(_reading(fd), os.fstat(fd).st_size)


def parse_header(read: Read, length: int) -> Header:
    """Do what :func:`read_header` does, for an image that is no local file."""
    head = read(0, 112)
    if head[:4] != MAGIC:
        raise refused("is named qcow2 but does not begin like one", "Name raw images *.raw.")
    if len(head) < 72:
        raise refused("ends within its header")
    version, back_at, back_length, bits, size, crypt, l1_entries, l1_at = struct.unpack_from(
        ">IQIIQIIQ", head, 4
    )
    if version not in (2, 3) or (version == 3 and len(head) < 104):
        raise refused(f"has the qcow version {version}, which is not known")
    if not 9 <= bits <= 21 or back_length > 1023 or l1_entries * 8 > 32 << 20 or l1_at > length:
        raise refused("has a damaged header")
    incompatible, end = (0, 72) if version == 2 else (_u64(head, 72), _u32(head, 100))
    if version == 3 and not 104 <= end <= 1 << bits:
        raise refused("has a damaged header")
    cluster = read(0, 1 << bits)
    backing = cluster[back_at : back_at + back_length]
    if back_at and len(backing) != back_length:
        raise refused("has a damaged header")
    return Header(
        size,
        backing.decode(errors="backslashreplace") if back_at else "",
        bool(incompatible & _DATA_FILE) or _EXT_DATA_FILE in _extensions(cluster, end, back_at),
        bool(crypt),
        incompatible,
        version,
        bits,
        l1_entries,
        l1_at,
        cluster[104] if incompatible & _COMPRESSION and end > 104 else ZLIB,
    )


def backing(fd: int) -> str:
    """Return the backing file an image names, for whatever begins like a qcow2 image; else an empty text."""
    return read_header(fd).backing if os.pread(fd, 4, 0) == MAGIC else ""


def can_link() -> bool:
    return shutil.which(_TOOL) is not None


def overlay(folder: Folder, name: str, base: str, base_format: str) -> None:
    """Make the qcow2 image ``name`` in ``folder`` on top of ``base``, a path relative to it; size inherited."""
    tool = shutil.which(_TOOL)
    if tool is None or base_format not in FORMATS:
        raise Refused(
            "Linked clones need the program qemu-img.", code="PREREQUISITE", action="Install qemu-utils."
        )
    command = [tool, "create", "-q", "-f", "qcow2", "-F", base_format, "-b", base, name]
    try:
        done = files.do(_run, command, f"/proc/self/fd/{folder.fd}")
    except subprocess.TimeoutExpired:
        raise Refused("qemu-img did not finish in time.", code="TIMEOUT", action="Retry.") from None
    if done.returncode:
        raise _complaint(done.stderr)
    fd = folder.open(name)
    try:
        files.do(os.fsync, fd)
    finally:
        os.close(fd)


def _run(command: list[str], folder: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        processes.tethered(command),
        cwd=folder,
        env=processes.clean_environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=_TOOL_SECONDS,
        check=False,
    )


def _complaint(said: bytes) -> Exception:
    if b"No space left" in said:
        return OSError(28, os.strerror(28))
    return Refused("qemu-img could not make the linked clone.", action="Look at the log, then retry.")


def check_raw(head: bytes, what: str) -> None:
    """Refuse a raw disk whose first bytes would let tools take it for an image of another format."""
    for magic, form in _OTHER_FORMATS.items():
        if head.startswith(magic):
            raise refused(f"{what} begins like a {form} image", "Give it the right ending, or convert it.")


def _check_stands_alone(header: Header) -> None:
    if header.backing:
        raise refused("stands on a backing file", "Flatten it first (qemu-img convert).")
    if header.data_file:
        raise refused("keeps its data in another file")
    if header.encrypted:
        raise refused("is encrypted")
    if header.incompatible & _CORRUPT:
        raise refused("is marked as damaged", "Repair it first (qemu-img check -r all).")
    if header.incompatible & _DIRTY:
        raise refused(
            "was not closed properly", "Shut the VM down, or repair the image (qemu-img check -r all)."
        )
    unknown = header.incompatible & ~_KNOWN or header.compression not in (ZLIB, ZSTD)
    if unknown or (header.extended and header.cluster_bits < _SUBCLUSTERED):
        raise refused("needs features that are not known here")
    if header.virtual_size % 512 or not header.virtual_size:
        raise refused("has a damaged header")


def _reading(fd: int) -> Read:
    return lambda offset, length: os.pread(fd, length, offset)


def _extensions(cluster: bytes, at: int, stop: int) -> set[int]:
    """Return the kinds of the header extensions that follow the header."""
    kinds = set()
    stop = min(stop or len(cluster), len(cluster))
    while at + 8 <= stop and (kind := _u32(cluster, at)):
        kinds.add(kind)
        at += 8 + (_u32(cluster, at + 4) + 7) // 8 * 8
    return kinds


def _u32(data: bytes, at: int) -> int:
    return int(struct.unpack_from(">I", data, at)[0])


def _u64(data: bytes, at: int) -> int:
    return int(struct.unpack_from(">Q", data, at)[0])
