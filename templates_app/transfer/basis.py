"""An image that a host holds already, as the beginning of the next: is it what it should be, is the copy of it?

Only samples are read: the stamp tells what was changed in the usual ways, and whoever wants every leaf of an image
read has it verified. A base that does not fit costs the saving, never the copy.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Iterable

from .changes import Changes
from .digest import Table
from .disk import Disk
from .extents import Run, spread
from .faults import Closed, Fault, fault_of
from .job import Base
from .ports import Host, Sink
from .tuning import Tuning
from .verify import ReadInto, holds_data, holds_zeros, read_fully, read_source
from .watch import Watch


class Unfit(Exception):
    """The base is not used; ``fault`` says why."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.text)
        self.fault = fault


def _unfit(error: Exception) -> Unfit:
    fault = fault_of(error)
    if fault.code == "FAILED":
        traceback.print_exception(error, file=sys.stderr)
    return Unfit(fault)


def _changed(text: str) -> Fault:
    return Fault("CONTENT_CHANGED", text)


class Basis:
    """What one lane begins a disk with. ``check`` raises once the lane is closed."""

    def __init__(
        self, disk: Disk, base: Base, *, watch: Watch, check: Callable[[], None], tuning: Tuning
    ) -> None:
        self._disk = disk
        self._base = base
        self._seen = ""
        self._watch, self._check, self._tuning = watch, check, tuning

    def changes(self, host: Host, buffer: memoryview) -> Changes:
        """What has to be sent after a copy of the base; Unfit when it is not what its manifest says."""
        try:
            changes = self._disk.changes_since(self._base.manifest or "")
            self._look_at_image(host, changes, buffer)
        except Closed:
            raise
        except Exception as error:
            raise _unfit(error) from error
        return changes

    def _look_at_image(self, host: Host, changes: Changes, buffer: memoryview) -> None:
        with self._watch:
            image = host.open_source(self._base.ref)
        try:
            with self._watch:
                self._seen = image.stamp()
            if image.size != changes.old.data.size or self._base.stamp not in ("", self._seen):
                raise _changed("The image was changed since it was published.")

            def read(offset: int, view: memoryview) -> int:
                with self._watch:
                    return image.read_into(offset, view)

            data = changes.old.data
            if not self._right(read, changes.old, data.runs, data.count, shift=0.0, buffer=buffer):
                raise _changed("The image is not what was published.")
        finally:
            with self._watch:
                image.close()

    def check_size(self, host: Host) -> None:
        """Unfit when the image is gone or has another size than the version."""
        if self._now(host)[0] != self._disk.data.size:
            raise Unfit(_changed("The image has another size than the version."))

    def check_unchanged(self, host: Host) -> None:
        """Unfit when the image was touched since it was looked at: what was copied of it may be anything."""
        if self._now(host)[1] != self._seen:
            raise Unfit(_changed("The image was changed while it was copied."))

    def _now(self, host: Host) -> tuple[int, str]:
        """The image's size and stamp; Unfit when it is gone."""
        try:
            with self._watch:
                image = host.open_source(self._base.ref)
                try:
                    return image.size, image.stamp()
                finally:
                    image.close()
        except Exception as error:
            raise _unfit(error) from error

    def copy(self, sink: Sink, report: Callable[[int], None]) -> None:
        """Have the host make the copy; ``report`` is told the bytes so far. NO_SPACE; Unfit for
        all else that keeps it from coming to be."""

        def beat(copied: int) -> None:
            self._watch.beat()
            self._check()
            report(copied)

        try:
            with self._watch:
                made = sink.copy_from(self._base.ref, beat)
        except Closed:
            raise
        except Exception as error:
            if fault_of(error).code == "NO_SPACE":
                raise  # nor would all of it fit
            raise _unfit(error) from error
        if not made:
            raise Unfit(Fault("UNABLE", "The host can not make the copy by itself."))

    def check_copy(self, read_into: ReadInto, changes: Changes, buffer: memoryview) -> None:
        """Read samples of what the copy of the base has to hold; Unfit when one of them is wrong."""
        kept = changes.kept_count()
        if not self._right(read_into, changes.new, changes.kept(), kept, shift=0.5, buffer=buffer):
            raise Unfit(_changed("The copy that the host made is not right."))

    def check_twin(self, read_into: ReadInto, buffer: memoryview) -> None:
        """Compare samples of a copy of the source disk with the source itself; Unfit when one differs."""
        data, other = self._disk.data, memoryview(bytearray(self._disk.data.leaf))
        for leaf in spread(data.runs, data.count, self._tuning.samples):
            self._check()
            start, stop = data.span(leaf, leaf + 1)
            one, two = buffer[: stop - start], other[: stop - start]
            with self._watch:
                read_source(self._disk.read_into, start, two)
            if not read_fully(read_into, start, one) or one != two:
                raise Unfit(_changed("The copy that the host made is not right."))

    def _right(
        self,
        read_into: ReadInto,
        table: Table,
        runs: Iterable[Run],
        count: int,
        *,
        shift: float,
        buffer: memoryview,
    ) -> bool:
        """Read samples of data and holes."""
        for leaf in spread(runs, count, self._tuning.samples, shift=shift):
            self._check()
            if not holds_data(read_into, table, (leaf, leaf + 1), buffer):
                return False
        for leaf in table.data.zero_samples():
            self._check()
            if not holds_zeros(read_into, table.data, (leaf, leaf + 1), buffer):
                return False
        return True
