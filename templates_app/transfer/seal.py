"""Sealing: every byte of a version's disks is read once, and their manifests are written."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from .convoy import Convoy, Piece
from .disk import Disk
from .events import Sealed, SealedDisk
from .extents import Run
from .manifest import write_manifest
from .progress import Pace


class Seal:
    """Travels with the first convoy as if it were a lane, so that all blocks are read even without any lane."""

    def __init__(self, disks: Sequence[Disk], on_complete: Callable[[], None]) -> None:
        self.missing = [disk.blocks.all_with_data() for disk in disks]
        self.pieces: set[Piece] = set()
        self.pace = Pace(0)
        self._on_complete = on_complete

    @property
    def complete(self) -> bool:
        """Whether nothing is left to read. Lock held."""
        return not self.pieces and not any(1 in missing for missing in self.missing)

    def lacks(self, disk: int, leaves: Run) -> None:
        """All of a block."""

    def joined(self, convoy: Convoy) -> None:
        """Sealing stays with the first convoy."""

    def arrived(self, piece: Piece) -> None:
        self.pieces.discard(piece)
        piece.release(self)
        if self.complete:
            self._on_complete()

    def leave(self) -> None:
        """Sealing never lags behind: it has nothing to wait for."""


def seal(disks: Sequence[Disk], folder: str) -> Sealed:
    """Write the manifests of disks that were read whole and are unchanged."""
    return Sealed([_seal_one(disk, folder) for disk in disks])


def _seal_one(disk: Disk, folder: str) -> SealedDisk:
    sealed = write_manifest(folder, disk.table)
    disk.digest = sealed.digest
    return sealed
