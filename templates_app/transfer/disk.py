"""One disk of the version: where it is read from, its map of data and the digests of its leaves."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from .changes import Changes, compare
from .digest import Table, leaf_digests, zero_digest
from .extents import Run, data_runs, marked, trimmed
from .faults import Fault, source_changed
from .job import SourceDisk
from .manifest import Manifest, scratch_store
from .plan import Blocks, DataMap
from .ports import Host, Sink, Source
from .spent import HASH, SOURCE, Spent
from .verify import read_source
from .watch import Watch

DIGEST_BYTES = 32


class Filling:
    """A block that was read: which leaves hold data, and which bytes of the disk have to be sent for that."""

    def __init__(self) -> None:
        self.leaves: list[Run] = []
        self.spans: list[Run] = []


class Twin:
    """A copy of the source disk that the host made by itself, to be read in its place as long as it is staged."""

    def __init__(self, sink: Sink) -> None:
        self.sink = sink
        self._quiet = threading.Condition()
        self._reading = 0
        self._gone = False

    def expect(self, offset: int, length: int) -> bool:
        """Tell what the thread is going to read; False once the copy was let go."""
        with self._held() as held:
            if held:
                self.sink.expect(offset, length)
            return held

    def read_into(self, offset: int, view: memoryview) -> int | None:
        """Read from the copy; None once it was let go."""
        with self._held() as held:
            return self.sink.read_into(offset, view) if held else None

    @contextmanager
    def _held(self) -> Iterator[bool]:
        with self._quiet:
            held = not self._gone
            self._reading += held
        try:
            yield held
        finally:
            with self._quiet:
                self._reading -= held
                self._quiet.notify_all()

    def let_go(self) -> None:
        """Return when nobody reads from the copy any more."""
        with self._quiet:
            self._gone = True
            while self._reading:
                self._quiet.wait()


class Disk:
    """A source disk. ``digest`` is empty until it is known; ``source`` is None where only the manifest is needed."""

    def __init__(
        self, source: Source | None, data: DataMap, table: Table, *, block: int, digest: str
    ) -> None:
        self.source = source
        self.stamp = source.stamp() if source else ""
        self.data = data
        self.table = table
        self.blocks = Blocks(data, block)
        self.digest = digest
        self.read = 0
        self._counting = threading.Lock()
        self.twin: Twin | None = None
        self._changes: dict[str, Changes] = {}
        self._comparing = threading.Lock()

    @classmethod
    def open(
        cls, host: Host | None, spec: SourceDisk, *, leaf: int, block: int, folder: str, watch: Watch
    ) -> Disk:
        """Open with its manifest, or with the source's own map and an empty table to learn the digests.

        To be called inside ``watch``: a map that takes long is no call that hangs.
        """
        if host and spec.manifest is None:
            return cls._open_unknown(host.open_source(spec.ref), leaf, block, folder, watch)
        manifest = _known(spec)
        source = host.open_source(spec.ref) if host else None
        if source and source.size != manifest.size:
            raise source_changed()
        return cls(source, manifest.data, manifest.table(), block=block, digest=manifest.digest)

    @classmethod
    def _open_unknown(cls, source: Source, leaf: int, block: int, folder: str, watch: Watch) -> Disk:
        stamp = source.stamp()
        extents = watch.alive(source.extents())
        data = DataMap(data_runs(extents, source.size, leaf), source.size, leaf)
        store = scratch_store(folder, data.count * DIGEST_BYTES)
        disk = cls(source, data, Table(data, store, known=False), block=block, digest="")
        disk.stamp = stamp
        return disk

    def changes_since(self, manifest: str) -> Changes:
        """What turns the version of another manifest (a path) into this one. MANIFEST_LOST, UNFIT."""
        with self._comparing:
            if manifest not in self._changes:
                self._changes[manifest] = self._compare(manifest)
            return self._changes[manifest]

    def _compare(self, path: str) -> Changes:
        try:
            old = Manifest.open(path)
        except (OSError, ValueError):
            raise Fault("MANIFEST_LOST", "The manifest of the version there is missing or damaged.") from None
        if (old.size, old.leaf_size) != (self.data.size, self.data.leaf):
            raise Fault("UNFIT", "The disk has another size than in the version there.")
        return compare(old.table(), self.table)

    def fill(self, block: int, view: memoryview, spent: Spent, wanted: bytes | None = None) -> Filling:
        """Read a block's data to its place in ``view`` and hash it; SOURCE_CHANGED when it is not what is known.

        ``wanted`` marks the leaves of the block that are needed; None for all.
        """
        filling = Filling()
        first, end = self.blocks.leaves(block)
        base = first * self.data.leaf
        runs = list(self._runs(first, end, wanted))
        if len(runs) > 1:
            self._expect((runs[0][0], runs[-1][1]))
        for run in runs:
            start, stop = self.data.span(*run)
            part = view[start - base : stop - base]
            with spent.on(SOURCE):
                read_source(self.read_into, start, part)
            with spent.on(HASH):
                digests = leaf_digests(part, self.data.leaf)
                if not self.table.settle(run[0], digests):
                    raise source_changed()
                self._collect(filling, run, part, digests)
            with self._counting:
                self.read += len(part)
        return filling

    def _runs(self, first: int, end: int, wanted: bytes | None) -> Iterable[Run]:
        if wanted is None:
            return self.data.clip(first, end)
        return ((first + start, first + stop) for start, stop in marked(wanted, 0, end - first))

    def _expect(self, leaves: Run) -> None:
        start, stop = self.data.span(*leaves)
        if self.source and not (self.twin and self.twin.expect(start, stop - start)):
            self.source.expect(start, stop - start)

    def read_into(self, offset: int, view: memoryview) -> int:
        """Read from the source, or from a copy of it that the host made."""
        if self.twin and (count := self.twin.read_into(offset, view)) is not None:
            return count
        if self.source is None:
            raise ValueError("a disk without a source has nothing to send")
        return self.source.read_into(offset, view)

    def _collect(self, filling: Filling, run: Run, part: memoryview, digests: list[bytes]) -> None:
        for first, end in _solid_runs(
            digests, zero_digest(self.data.leaf), zero_digest(self.data.length(run[1] - 1))
        ):
            leaves = (run[0] + first, run[0] + end)
            start, stop = self.data.span(*leaves)
            offset = first * self.data.leaf
            low, high = trimmed(part[offset : offset + stop - start])
            filling.leaves.append(leaves)
            filling.spans.append((start + low, start + high))

    def check_unchanged(self) -> None:
        """SOURCE_CHANGED when the source was touched since it was opened."""
        if self.source and self.source.stamp() != self.stamp:
            raise source_changed()


def _known(spec: SourceDisk) -> Manifest:
    try:
        manifest = Manifest.open(spec.manifest or "")
        if manifest.digest == spec.digest:
            return manifest
    except (OSError, ValueError):
        pass  # a manifest that is gone and one that is damaged need the same answer
    raise Fault(
        "MANIFEST_LOST",
        "The manifest of this version is missing or damaged on the controller.",
        action="Restore it from a backup, or create a new version.",
        permanent=True,
    )


def _solid_runs(digests: list[bytes], zero: bytes, last_zero: bytes) -> list[Run]:
    runs: list[Run] = []
    start = -1
    last = len(digests) - 1
    for at, digest in enumerate(digests):
        hollow = digest == zero or (at == last and digest == last_zero)
        if hollow and start >= 0:
            runs.append((start, at))
            start = -1
        elif not hollow and start < 0:
            start = at
    if start >= 0:
        runs.append((start, len(digests)))
    return runs
