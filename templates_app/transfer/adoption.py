"""An image that a host has published already: is it the wanted one, and if not, what is wrong with it?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .disk import Disk
from .events import PublishedImage
from .extents import Run, data_runs
from .faults import content_changed, fault_of
from .job import LaneDisk
from .plan import Blocks, DataMap
from .ports import Host, Source
from .verify import ReadInto, differing
from .watch import Watch


@dataclass(frozen=True)
class Difference:
    """How many ``leaves`` of an image, ``of`` so many, are not as they should be, and where the first one begins."""

    leaves: int
    of: int
    offset: int

    def __str__(self) -> str:
        wrong = f"{self.leaves} of {self.of} blocks are wrong" if self.leaves else "its size is wrong"
        return f"{wrong}, from byte {self.offset} on"


def difference(
    size: int,
    there: DataMap,
    disk: Disk,
    *,
    expect: Callable[[int, int], None],
    read: ReadInto,
    buffer: memoryview,
    done: Callable[[Run], None],
    compared: int = 0,
) -> Difference | None:
    """Compare every block in which the image or the version has data; the others are holes in both.

    The image has ``size`` bytes, and data where ``there`` says so. The first ``compared`` bytes of data are known
    to be right. ``expect`` is told what is read next, ``done`` the leaves of each block, up to the first one that
    is not. None when nothing differs.
    """
    data, blocks, bad, passed = disk.data, disk.blocks, list[int](), 0
    for block, (wanted, found) in enumerate(
        zip(blocks.all_with_data(), Blocks(there, blocks.bytes).all_with_data(), strict=True)
    ):
        if wanted or found:
            leaves = blocks.leaves(block)
            passed += data.bytes_between(*leaves)
            if passed > compared or not wanted:
                start, stop = data.span(*leaves)
                expect(start, stop - start)
                bad += differing(read, disk.table, leaves, buffer)
            if not bad:
                done(leaves)
    if not bad and size == data.size:
        return None
    return Difference(len(bad), data.leaves, bad[0] * data.leaf if bad else min(size, data.size))


class Adoption:
    """The image at a lane's host that ``have`` refers to, for one of its disks. ``check`` raises once the lane is
    closed."""

    def __init__(
        self, disk: Disk, spec: LaneDisk, have: str, *, watch: Watch, check: Callable[[], None]
    ) -> None:
        self._disk = disk
        self._spec = spec
        self._ref = have
        self._stamp = ""
        self._watch, self._check = watch, check

    def compare(
        self, host: Host, buffer: memoryview, *, receive: Callable[[int], None], done: Callable[[Run], None]
    ) -> Difference | None:
        """Read the image; None when it is the wanted one.

        ``receive`` waits until so many bytes may be read; ``done`` as in :func:`difference`. CONTENT_CHANGED when the
        image changes meanwhile.
        """
        image = self._open(host)

        def expect(offset: int, length: int) -> None:
            with self._watch:
                image.expect(offset, length)

        def read(offset: int, view: memoryview) -> int:
            self._check()
            receive(len(view))
            with self._watch:
                return image.read_stored(offset, view)

        try:
            with self._watch:
                self._stamp = image.stamp()
                there = self._map(image)
            compared = self._spec.compared if self._spec.stamp == self._stamp else 0
            found = difference(
                image.size,
                there,
                self._disk,
                expect=expect,
                read=read,
                buffer=buffer,
                done=done,
                compared=compared,
            )
            with self._watch:
                if image.stamp() != self._stamp:
                    raise content_changed()
        finally:
            with self._watch:
                image.close()
        return found

    def _open(self, host: Host) -> Source:
        try:
            with self._watch:
                return host.open_source(self._ref)
        except Exception as error:
            if (fault := fault_of(error)).code == "PREREQUISITE":  # it was in order when it was published
                raise content_changed(fault.text.rstrip(".")) from error
            raise

    def _map(self, image: Source) -> DataMap:
        size, leaf = self._disk.data.size, self._disk.data.leaf
        return DataMap(data_runs(self._watch.alive(image.extents()), size, leaf), size, leaf)

    def confirm(self, host: Host, name: str, mark: Any) -> PublishedImage:
        """Say that it was compared and found right: the host may have taken it for changed."""
        if self._spec.stamp != self._stamp:
            with self._watch:
                host.confirm(name, mark, self._stamp)
        return PublishedImage(self._ref, name, self._disk.data.size, self._stamp, self._disk.digest)
