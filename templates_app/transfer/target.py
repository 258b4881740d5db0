"""One disk at one host: what is staged there, what it still lacks, what is durable and what is proven."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from .adoption import Adoption, Difference
from .basis import Basis, Unfit
from .disk import Disk, Filling, Twin
from .events import PublishedImage
from .extents import Run, gaps, marked, merged, without
from .faults import Fault, checksum_mismatch
from .job import Base, LaneDisk
from .journal import Journal, Subject, claims
from .ports import Host
from .spent import COPY, Spent
from .staged import Staged
from .tuning import Tuning
from .verify import PIECE, differing, holds_data, holds_zeros, stretches
from .watch import Watch

DIGEST_PLACE = "{digest12}"


@dataclass(frozen=True)
class Landed:
    """A block that the host accepted: the leaves it settles, those of them to read back, its bytes of data."""

    block: int
    settled: Run
    leaves: list[Run]
    data: int


class Target:
    """What several threads touch (``landed``, ``unread``) is changed under the run's lock by the caller.

    ``needs`` marks the leaves that have to be sent where the host holds the others already; None for all. ``based``
    when the host made a copy to begin with, ``unbased`` says why it did not.
    """

    def __init__(
        self,
        disk: Disk,
        spec: LaneDisk,
        *,
        watch: Watch,
        spent: Spent,
        check: Callable[[], None],
        tuning: Tuning,
    ) -> None:
        self.disk = disk
        self.spec = spec
        self.needs: bytearray | None = None
        self.based = False
        self.unbased: Fault | None = None
        self.missing = bytearray(disk.blocks.count) if spec.have else disk.blocks.all_with_data()
        self._open = bytearray(self.missing)
        self.total = disk.data.total()
        self.done = 0
        self.accepted = 0
        self._unproven = 0
        self.landed: list[Landed] = []
        self.landed_since = 0.0
        self.unread: deque[list[Run]] = deque()
        self._claimed = bytearray(disk.blocks.count)
        self._committed: tuple[str, Any] | None = None
        self._journal: Journal | None = None
        self._twin: Twin | None = None
        self._watch, self._spent, self._check, self._tuning = watch, spent, check, tuning
        self._adoption = Adoption(disk, spec, spec.have, watch=watch, check=check) if spec.have else None
        self.staged = Staged(disk, spec.name, watch=watch, check=check, tuning=tuning)

    def stage(self, host: Host, mark: Any, buffer: memoryview) -> None:
        """Begin, or go on with what an earlier run left: keep what its journal claims and a read-back proves. Where
        nothing is left, begin with a copy that the host makes of what it has, if there is such a thing."""
        self.staged.begin(host, mark)
        subject = Subject(self.staged.sink.token, self.disk.data.size, self.disk.data.leaf)
        claimed = claims(self.spec.journal, subject)
        if claimed:
            kept = self._resume(claimed, buffer)
        else:
            if os.path.exists(self.spec.journal):
                self.staged.begin_anew(host, mark)
            kept = self._copy_base(host, mark, buffer)
            if not self.based:
                self.staged.clear([(0, self.disk.data.leaves)])
        if self.needs is None and not self.based:
            self.staged.reserve()
        self._claim(kept)

    def _resume(self, claimed: list[Run], buffer: memoryview) -> list[Run]:
        leaves = self.disk.data.leaves
        if not self.disk.table.known:
            kept = merged(self.disk.blocks.leaves(block) for block in self._unseen(claimed))
            self.staged.clear(gaps(kept, leaves))
            return kept
        kept = merged(self._proven(claimed, buffer))
        needs = bytearray(leaves)
        for first, end in without(self.disk.data.runs, kept):
            needs[first:end] = b"\x01" * (end - first)
        self.staged.clear(without(gaps(kept, leaves), self.disk.data.runs))
        self._need(needs)
        return kept

    def _unseen(self, claimed: list[Run]) -> Iterator[int]:
        """Full blocks to keep while their digests are unknown: compared when they are read."""
        for block in self.disk.blocks.whole(claimed):
            leaves = self.disk.blocks.leaves(block)
            if list(self.disk.data.clip(*leaves)) == [leaves]:
                self._claimed[block] = 1
                yield block

    def _proven(self, claimed: list[Run], buffer: memoryview) -> Iterator[Run]:
        for run in claimed:
            for part in self.disk.blocks.cut(run):
                self._check()
                if self.staged.holds(part, buffer):
                    self._count(part)
                    yield part

    def _need(self, needs: bytearray) -> None:
        """Have only these leaves sent; the host holds the others. What it has in their place may be anything."""
        self.needs = needs
        self.missing[:] = self.disk.blocks.with_any(needs)
        self._open[:] = self.missing
        self.done = self.total - self.lacking_bytes((0, len(needs)))

    def _copy_base(self, host: Host, mark: Any, buffer: memoryview) -> list[Run]:
        """Have the host copy what it has; return the leaves that are right by that, none where it has to be sent."""
        if self.spec.base is None:
            return []
        self._claim([])  # a run that is killed from here on leaves nothing that may be trusted
        try:
            with self._spent.on(COPY):
                kept = self._copy_from(self.spec.base, host, buffer)
        except Unfit as unfit:
            self.unbased = unfit.fault
            self.done = 0
            self.staged.begin_anew(host, mark)
            return []
        self.based = True
        return kept

    def _copy_from(self, base: Base, host: Host, buffer: memoryview) -> list[Run]:
        basis = Basis(self.disk, base, watch=self._watch, check=self._check, tuning=self._tuning)
        if base.manifest is None:
            basis.copy(self.staged.sink, lambda copied: self._copied(copied, self.total, 2))
            self.staged.flush()
            basis.check_twin(self.staged.read_into, buffer)
            self._twin = self.disk.twin = Twin(self.staged.sink)
            self.done = self.total // 2
            return []
        if not base.proven:
            basis.check_size(host)
            basis.copy(self.staged.sink, lambda copied: self._copied(copied, self.total, 2))
            return self._repair(buffer)
        changes = basis.changes(host, buffer)
        kept = list(changes.kept())
        most = sum(self.disk.data.bytes_between(*run) for run in kept)
        basis.copy(self.staged.sink, lambda copied: self._copied(copied, most, 1))
        basis.check_unchanged(host)
        self.staged.clear(changes.emptied)
        self.staged.flush()
        basis.check_copy(self.staged.read_into, changes, buffer)
        self._need(changes.altered)
        return kept

    def _repair(self, buffer: memoryview) -> list[Run]:
        """Read all of a copy of which nothing is known; return what is right, have the rest sent."""
        data, needs, read = self.disk.data, bytearray(self.disk.data.leaves), 0
        self.staged.clear(gaps(data.runs, data.leaves))
        self.staged.flush()
        for run in data.runs:
            for part in self.disk.blocks.cut(run):
                self._check()
                self.staged.expect(part)
                for leaf in differing(self.staged.read_into, self.disk.table, part, buffer):
                    needs[leaf] = 1
                read += data.bytes_between(*part)
                self.done = (self.total + read) // 2
        self._need(needs)
        return list(without(data.runs, list(marked(needs, 0, data.leaves))))

    def _copied(self, copied: int, most: int, share: int) -> None:
        """Note how far the host is with its copy: half of the work where all of it is still to be read."""
        self.accepted = min(copied, most)
        self.done = self.accepted // share

    def _claim(self, kept: list[Run]) -> None:
        if self._journal:
            self._journal.close()
        subject = Subject(self.staged.sink.token, self.disk.data.size, self.disk.data.leaf)
        self._journal = Journal(self.spec.journal, subject)
        self._journal.begin(kept)

    def _count(self, leaves: Run) -> None:
        proven = self.disk.data.bytes_between(*leaves)
        self.done += proven
        self.accepted += proven

    def lacks(self, leaves: Run) -> bytes | None:
        """Which of these leaves are needed, one byte for each; None for all that hold data."""
        return None if self.needs is None else bytes(self.needs[slice(*leaves)])

    def lacking_bytes(self, leaves: Run) -> int:
        """Bytes of data that are needed between two leaves."""
        if self.needs is None:
            return self.disk.data.bytes_between(*leaves)
        spans = (self.disk.data.span(*run) for run in marked(self.needs, *leaves))
        return sum(stop - start for start, stop in spans)

    def portion(self, leaves: Run, filling: Filling) -> tuple[list[Run], list[Run]]:
        """Leaves and bytes of a block to write. What is not clear is overwritten whole, zeros at its ends too."""
        if self.needs is None:
            return filling.leaves, filling.spans
        runs = list(marked(self.needs, *leaves))
        return runs, [self.disk.data.span(*run) for run in runs]

    def already_holds(self, block: int) -> bool:
        """Whether a block that was kept unseen is what was read just now; if not, clear it for writing."""
        if self._twin:
            return True
        if not self._claimed[block]:
            return False
        self._claimed[block] = 0
        leaves = self.disk.blocks.leaves(block)
        if self.staged.holds(leaves, memoryview(bytearray(PIECE))):
            return True
        self.staged.clear([leaves])
        return False

    def land(self, landed: Landed) -> None:
        if not self.landed:
            self.landed_since = time.monotonic()
        self.landed.append(landed)
        self._unproven += self._bytes_of(landed.leaves)
        self.accepted += landed.data

    @property
    def ahead(self) -> bool:
        """Whether writing has got so far that it should wait for what is read back."""
        return self.staged.sink.sequential and self._unproven > self._tuning.unproven_bytes

    def flush_due(self) -> bool:
        return bool(self.landed) and (
            time.monotonic() - self.landed_since >= self._tuning.journal_seconds
            or sum(landed.data for landed in self.landed) >= self._step()
        )

    def _step(self) -> int:
        """Bytes to flush at once: fewer at both ends, so that reading back begins early and ends soon after writing."""
        near = min(self.accepted, self.total - self.accepted) // 2
        return min(max(near, self._tuning.first_journal_bytes), self._tuning.journal_bytes)

    def flush(self, landed: list[Landed]) -> None:
        """Make durable what landed, then say so in the journal, then let it be read back."""
        self.staged.flush()
        if self._journal and not self._twin:
            self._journal.add(item.settled for item in landed)
        self.done += sum(item.data for item in landed) // (2 if self._twin else 1)
        for item in landed:
            self._open[item.block] = 0
        runs = merged(run for item in landed for run in item.leaves)
        self.unread.extend(stretches(runs, self.disk.data))

    def read_back(self, stretch: list[Run], buffer: memoryview) -> None:
        """Compare durable pieces with what they should be."""
        self.staged.expect((stretch[0][0], stretch[-1][1]))
        for piece in stretch:
            self._check()
            if not holds_data(self.staged.read_into, self.disk.table, piece, buffer):
                raise checksum_mismatch()

    def proved(self, stretch: list[Run]) -> None:
        """Take note that these pieces were read back."""
        self._unproven -= self._bytes_of(stretch)

    def _bytes_of(self, runs: Iterable[Run]) -> int:
        return sum(self.disk.data.bytes_between(*run) for run in runs)

    def check_complete(self) -> None:
        """A last look at our own work: every block with data was proven, or flushed and then read back."""
        if 1 in self._open or self.landed or self.unread:
            raise RuntimeError("a lane ended with blocks left")

    def sample_holes(self, buffer: memoryview) -> None:
        """Look at some leaves that were never written, the end of the disk among them."""
        for leaf in self.disk.data.zero_samples():
            self._check()
            if not holds_zeros(self.staged.read_into, self.disk.data, (leaf, leaf + 1), buffer):
                raise checksum_mismatch()

    def adopt(self, host: Host, buffer: memoryview, receive: Callable[[int], None]) -> Difference | None:
        """Read the image that is already published there, if any; see :meth:`Adoption.compare`."""
        if self._adoption is None:
            return None
        return self._adoption.compare(host, buffer, receive=receive, done=self._count)

    def commit(self, host: Host, mark: Any) -> PublishedImage:
        """Publish, or confirm what is published; only ever called for a target whose every leaf is proven."""
        name = self.spec.name.replace(DIGEST_PLACE, self.disk.digest[:12])
        if self._adoption:
            return self._adoption.confirm(host, name, mark)
        self._end_reading()
        image = self.staged.commit(name, mark)
        self._committed = image.name, mark
        if self._journal:
            self._journal.delete()
        return PublishedImage(image.ref, image.name, image.size, image.stamp, self.disk.digest)

    def _end_reading(self) -> None:
        if self._twin:
            self._twin.let_go()

    def close(self) -> None:
        """Let go, keep what is staged."""
        self._end_reading()
        if self._journal:
            self._journal.close()
        self.staged.close()

    def discard(self, host: Host) -> None:
        """Remove what is staged, and its journal; also what was published here while another disk could not be."""
        self._end_reading()
        if self._committed:
            with self._watch:
                host.remove(*self._committed)
        else:
            self.staged.abort()
        if self._journal:
            self._journal.delete()
        self.close()
