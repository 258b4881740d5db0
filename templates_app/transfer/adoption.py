"""An image that a host has published already: is it the wanted one, and if not, what is wrong with it?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from .disk import Disk
from .extents import Run
from .plan import Blocks, DataMap
from .verify import ReadInto, differing


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
