"""A new version of which 2 % changed, to hosts that have the old one."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from providers_app.drivers import Mark, open_driver
from templates_app.transfer.events import Event, Published
from templates_app.transfer.job import Base
from templates_app.transfer.process import Engine

from .breaks import rsync_on
from .measure import Found, flush, forget, run_together
from .peers import CP, available
from .reflinks import obstacle, reflinks
from .rounds import ENGINE, Case, Entry
from .site import Site, half_full, site

CHANGED = 0.02
CLUSTER, WRITE, LEAF = 2 << 20, 4 << 10, 64 << 10


def changes(size: int, piece: int) -> Iterator[tuple[int, int]]:
    """Pieces of data to write anew: 2 % of all data, anywhere among it."""
    chance = random.Random(piece)
    runs = [(offset, length) for offset, length in half_full(size) if length >= piece]
    data = sum(length for _, length in half_full(size))
    for _ in range(max(1, int(data * CHANGED) // piece)):
        offset, length = chance.choice(runs)
        yield offset + chance.randrange(length // piece) * piece, piece


class Versions:
    """Two versions at the source; hosts ``t0`` … that have the first. A host keeps it beside the second."""

    def __init__(self, place: Site, size: int, piece: int, targets: int) -> None:
        self.place, self.targets = place, targets
        self.old = place.image("old", half_full(size), size)
        self.new = place.folder / "source" / "vms" / "new" / "disk.raw"
        self.new.parent.mkdir()
        run_together([["cp", str(self.old), str(self.new)]])
        with self.new.open("r+b") as file:
            for offset, length in changes(size, piece):
                file.seek(offset)
                file.write(os.urandom(length))
        flush(self.new)
        place.seal(self.old, self.new)
        self.refs: dict[str, tuple[str, str]] = {}
        place.distribute(place.job(self.old, place.names(targets)), self._note)
        self.copies = [place.folder / name / "copy.raw" for name in place.names(targets)]

    def _note(self, engine: Engine, event: Event) -> None:
        if isinstance(event, Published):
            self.refs[event.lane] = (event.images[0].ref, event.images[0].stamp)

    def changed_leaves(self, size: int, piece: int) -> int:
        """Bytes of leaves in which anything changed."""
        return (
            len(
                {
                    offset // LEAF + step
                    for offset, length in changes(size, piece)
                    for step in range(-(-length // LEAF))
                }
            )
            * LEAF
        )

    def engine(self) -> Found:
        lanes = []
        for name in self.place.names(self.targets):
            ref, stamp = self.refs[name]
            base = Base(ref, self.place.manifest(self.old), stamp)
            lanes.append(self.place.lane(self.new, name, self.place.address(name), base=base))
        return self.place.distribute(self.place.job(self.new, lanes))

    def prepare(self) -> None:
        forget(self.new)
        for name in self.place.names(self.targets):
            forget(self.place.folder / name / self.refs[name][0])

    def prepare_rsync(self) -> None:
        self.prepare()
        for copy in self.copies:
            run_together([["cp", str(self.old), str(copy)]])
            forget(copy)
        forget(self.old)

    def copy_and_rsync(self) -> Found:
        """What a host holds afterwards is what it holds after rasweb: both versions."""
        bases = [self.place.folder / name / self.refs[name][0] for name in self.place.names(self.targets)]
        run_together([["cp", str(base), str(copy)] for base, copy in zip(bases, self.copies, strict=True)])
        return rsync_on(self.new, self.copies)

    def clear(self) -> None:
        image = self.place.lane(self.new, "t0", self.place.address("t0")).disks[0]
        for name in self.place.names(self.targets):
            address = self.place.address(name)
            with open_driver(address.kind, address.settings) as host:
                host.remove(image.name, Mark(**image.mark))
        for copy in self.copies:
            copy.unlink(missing_ok=True)


@contextmanager
def delta_of_shared_blocks(
    folder: Path, size: int, share: float, *, targets: int, clustered: bool
) -> Iterator[Case]:
    """The same where files share blocks (XFS), so that a host's own copy of the old version costs nothing."""
    if why := obstacle():
        yield Case("shared blocks", "", share, [], notes=[f"Not measured: {why}."])
        return
    size *= 2  # the process takes as long to start however little there is to do
    room = (targets + 3) * size
    with (
        reflinks(folder, room) as shared,
        delta(shared, size, share, targets=targets, clustered=clustered) as case,
    ):
        case.name += ", shared blocks"
        case.about += " Files share blocks there (XFS)."
        case.entries = [entry for entry in case.entries if entry.name != "cp, all of it"]
        yield case


@contextmanager
def delta(folder: Path, size: int, share: float, *, targets: int, clustered: bool) -> Iterator[Case]:
    name = "clustered" if clustered else "scattered"
    piece = min(CLUSTER if clustered else WRITE, size // 64)
    with site(folder, f"{name}{targets}") as place:
        versions = Versions(place, size, piece, targets)
        leaves = versions.changed_leaves(size, piece)
        hosts = "1 host" if targets == 1 else f"{targets} hosts"
        full = partial(CP.copy, versions.new, versions.copies)
        entries = [
            Entry("rasweb", versions.engine, ENGINE, versions.prepare, proven=True),
            Entry("cp, all of it", full, prepare=versions.prepare, slow=True),
        ]
        if available("rsync"):
            work = partial(rsync_on, versions.new, versions.copies)
            entries += [
                Entry("rsync in place", work, prepare=versions.prepare_rsync, slow=targets > 1),
                Entry("cp of the old, rsync", versions.copy_and_rsync, prepare=versions.prepare, slow=True),
            ]
        yield Case(
            f"2 % {name}, {hosts}",
            f"2 % of the data of {size >> 20} MiB written anew in pieces of {piece >> 10} KiB; {hosts} with the old "
            "version. rasweb keeps it beside the new one, rsync overwrites it.",
            share,
            entries,
            versions.clear,
            [f"Leaves of 64 KiB in which anything changed: {leaves / (1 << 20):.1f} MiB for each host."],
            leaves,
        )
