"""Page-aligned buffers, made when first needed and used again and again."""

from __future__ import annotations

import mmap
from contextlib import suppress


class Buffer:
    """``size`` bytes of memory of its own pages, fit for direct I/O."""

    def __init__(self, size: int) -> None:
        self._pages = mmap.mmap(-1, size)
        if size >= 2 << 20:
            with suppress(OSError):  # a kernel without huge pages works as well, only slower
                self._pages.madvise(mmap.MADV_HUGEPAGE)
        self.view = memoryview(self._pages)


class Pool:
    """A bounded set of buffers. Not locked: used under the run's lock only."""

    def __init__(self, count: int, size: int) -> None:
        self.size = size
        self._unmade = count
        self._free: list[Buffer] = []

    def __bool__(self) -> bool:
        return bool(self._free) or self._unmade > 0

    def take(self) -> Buffer:
        """A free buffer; ask first whether there is one."""
        if self._free:
            return self._free.pop()
        self._unmade -= 1
        return Buffer(self.size)

    def give(self, buffer: Buffer) -> None:
        self._free.append(buffer)

    def replace(self) -> None:
        """Make up for a buffer that a hung call may touch for ever."""
        self._unmade += 1
