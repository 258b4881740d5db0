"""Readers of one convoy: two at work, one order."""

from __future__ import annotations

import threading
from typing import Any, cast

from templates_app.transfer.convoy import Convoy, Piece
from templates_app.transfer.disk import Disk, Filling
from templates_app.transfer.extents import Run
from templates_app.transfer.plan import Blocks, DataMap
from templates_app.transfer.progress import Pace
from templates_app.transfer.spent import Spent

from .drive import BLOCK, LEAF, LIMIT_SECONDS, SMALL


class FullDisk:
    """Nothing but data; reading is up to the test."""

    def __init__(self, blocks: int) -> None:
        leaves = blocks * BLOCK // LEAF
        self.blocks = Blocks(DataMap([(0, leaves)], leaves * LEAF, LEAF), BLOCK)


class Observer:
    """Travels along and notes in which order blocks arrive."""

    def __init__(self, blocks: int) -> None:
        self.missing = [bytearray(b"\x01" * blocks)]
        self.pieces: set[Piece] = set()
        self.pace = Pace(0)
        self.seen: list[int] = []
        self.all = threading.Event()
        self._blocks = blocks

    def lacks(self, disk: int, leaves: Run) -> None:
        """All of a block."""

    def joined(self, convoy: Convoy) -> None: ...

    def leave(self) -> None: ...

    def arrived(self, piece: Piece) -> None:
        self.seen.append(piece.block)
        self.pieces.discard(piece)
        piece.release(self)
        if len(self.seen) == self._blocks:
            self.all.set()


def test_blocks_arrive_in_order_though_a_later_one_was_read_first() -> None:
    second_is_read = threading.Event()
    in_time: list[bool] = []

    def read(disk: Disk, piece: Piece, spent: Spent) -> Filling:
        if piece.block == 0:
            in_time.append(second_is_read.wait(LIMIT_SECONDS))
        if piece.block == 1:
            second_is_read.set()
        return Filling()

    lock, faults, observer = threading.Lock(), cast("list[BaseException]", []), Observer(6)
    disks: Any = [FullDisk(6)]
    convoy = Convoy(0, disks, lock=lock, tuning=SMALL, read=read, on_fault=faults.append)
    with lock:
        convoy.join(observer)
    arrived = observer.all.wait(LIMIT_SECONDS)
    with lock:
        convoy.close()
    assert (arrived, in_time, observer.seen, faults) == (True, [True], [0, 1, 2, 3, 4, 5], [])
