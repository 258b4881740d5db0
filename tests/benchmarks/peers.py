"""Other programs that copy a disk image to several places. Each call ends when all copies are durable."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from .measure import Found, flush, forget, run_together

Copy = Callable[[Path, Sequence[Path]], Found]


@dataclass(frozen=True)
class Peer:
    """``slow`` ones are run less often."""

    name: str
    program: str
    copy: Copy
    proven: bool = False
    slow: bool = False


def present(peers: Sequence[Peer]) -> list[Peer]:
    return [peer for peer in peers if available(peer.program)]


def available(program: str) -> bool:
    return shutil.which(program) is not None


def _flushed(memory: int, targets: Sequence[Path]) -> Found:
    for target in targets:
        flush(target)
    return Found(memory)


def _cp(source: Path, targets: Sequence[Path]) -> Found:
    return _flushed(run_together([["cp", str(source), str(target)] for target in targets]), targets)


def _qemu_img(source: Path, targets: Sequence[Path]) -> Found:
    options = ["qemu-img", "convert", "-f", "raw", "-O", "raw", "-W", "-m", "8", "-t", "none", "-T", "none"]
    return _flushed(run_together([[*options, str(source), str(target)] for target in targets]), targets)


def _rsync(source: Path, targets: Sequence[Path]) -> Found:
    commands = [["rsync", "-I", "--sparse", str(source), str(target)] for target in targets]
    return _flushed(run_together(commands), targets)


def _nbdcopy(source: Path, targets: Sequence[Path]) -> Found:
    for target in targets:
        with target.open("wb") as file:
            file.truncate(source.stat().st_size)
    commands = [["nbdcopy", "--destination-is-zero", str(source), str(target)] for target in targets]
    return _flushed(run_together(commands), targets)


def _bmaptool(source: Path, targets: Sequence[Path]) -> Found:
    """With a map of digests that was made before, as the engine has its manifest."""
    copy = ["bmaptool", "--quiet", "copy", "--bmap", f"{source}.bmap", str(source)]
    return _flushed(run_together([[*copy, str(target)] for target in targets]), targets)


def _tar(source: Path, targets: Sequence[Path]) -> Found:
    line = 'tar -C "$1" -Scf - "$2" | tar -C "$3" -Sxf - --transform "s|.*|$4|"'
    commands = [
        ["sh", "-c", line, "sh", str(source.parent), source.name, str(target.parent), target.name]
        for target in targets
    ]
    return _flushed(run_together(commands), targets)


def _compared(copy: Copy, *command: str) -> Copy:
    """A copy, and then each target read back past the page cache and compared with the source."""

    def work(source: Path, targets: Sequence[Path]) -> Found:
        memory = copy(source, targets).memory
        for target in targets:
            forget(target)
        return Found(max(memory, run_together([[*command, str(source), str(target)] for target in targets])))

    return work


def map_of_digests(source: Path) -> None:
    """Make the map that bmaptool works with."""
    if available("bmaptool"):
        run_together([["bmaptool", "create", "-o", f"{source}.bmap", str(source)]])


_COMPARE = ("qemu-img", "compare", "-q", "-T", "none", "-f", "raw", "-F", "raw")
NBDCOPY = Peer("nbdcopy", "nbdcopy", _nbdcopy)
QEMU_IMG = Peer("qemu-img convert", "qemu-img", _qemu_img)
CP = Peer("cp", "cp", _cp)
TAR = Peer("tar", "tar", _tar, slow=True)
BMAPTOOL = Peer("bmaptool", "bmaptool", _bmaptool, slow=True)
RSYNC = Peer("rsync", "rsync", _rsync, slow=True)
PROVEN = [
    Peer("qemu-img convert, compare", "qemu-img", _compared(_qemu_img, *_COMPARE), proven=True),
    Peer("nbdcopy, qemu-img compare", "nbdcopy", _compared(_nbdcopy, *_COMPARE), proven=True),
    Peer("cp, cmp", "cmp", _compared(_cp, "cmp"), proven=True, slow=True),
]
PEERS = [NBDCOPY, QEMU_IMG, CP, BMAPTOOL, TAR, RSYNC, *PROVEN]


def direct_writes(data: int, targets: Sequence[Path]) -> Found:
    """As many zeros as there is data, past the page cache: what the disk can take at best."""
    options = ["if=/dev/zero", "bs=4M", f"count={max(1, data >> 22)}", "oflag=direct", "conv=fdatasync"]
    return Found(run_together([["dd", f"of={target}", *options, "status=none"] for target in targets]))


def direct_reads(data: int, sources: Sequence[Path]) -> Found:
    """As many bytes as there is data, past the page cache: what the disk can give at best."""
    options = ["of=/dev/null", "bs=4M", f"count={max(1, data >> 22)}", "iflag=direct"]
    return Found(run_together([["dd", f"if={source}", *options, "status=none"] for source in sources]))
