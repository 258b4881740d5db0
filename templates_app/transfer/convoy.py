"""Lanes that travel together: their blocks are read once and handed to all of them.

A convoy has a bounded window of buffers and reader threads: while one reads the other hashes, and blocks are handed
over in the order in which they were chosen. Lanes may join at any time: the readers go round until nobody lacks
anything. When the window is full because one lane is much slower than the best, that lane goes on with the next convoy,
which reads by itself. Everything here is guarded by the run's one lock.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from math import inf
from typing import Protocol, cast

from .buffers import Pool
from .disk import Disk, Filling
from .extents import Run
from .progress import Pace
from .spent import OTHERS, Spent
from .tuning import Tuning

BUSY = 0.5  # who holds others up has work most of the time


class Piece:
    """A block in a buffer. ``users`` are all who still need the buffer: the reader at first, and each lane."""

    def __init__(self, convoy: Convoy, disk: int, block: int) -> None:
        self.convoy = convoy
        self.disk = disk
        self.block = block
        self.leaves: Run = convoy.disks[disk].blocks.leaves(block)
        self.base = block * convoy.disks[disk].blocks.bytes
        self.buffer = convoy.pool.take()
        self.users: set[Convoy | Traveller] = {convoy}
        self.filling = Filling()
        self.filled = False
        self.wanted: bytes | None = bytes(self.leaves[1] - self.leaves[0])
        self._lost = False
        self._returned = False

    def want(self, leaves: bytes | None) -> None:
        """Have these leaves of the block read too, one byte for each; None for all."""
        if leaves is None or self.wanted is None:
            self.wanted = None
        else:
            both = int.from_bytes(self.wanted) | int.from_bytes(leaves)
            self.wanted = both.to_bytes(len(leaves))

    def release(self, user: Convoy | Traveller) -> None:
        """``user`` needs the buffer no more; the last one gives it back. Safe twice."""
        self.users.discard(user)
        if self.users or self._returned:
            return
        self._returned = True
        if self._lost:
            self.convoy.pool.replace()
        else:
            self.convoy.pool.give(self.buffer)
        self.convoy.wake.notify()

    def abandon(self, user: Convoy | Traveller) -> None:
        """``user`` hangs and may touch the buffer for ever: it is never used again."""
        self._lost = True
        self.release(user)


class Traveller(Protocol):
    """Who blocks are read for: a lane, or the sealing of a new version. ``missing`` has one map for each disk."""

    missing: list[bytearray]
    pieces: set[Piece]
    pace: Pace

    def lacks(self, disk: int, leaves: Run) -> bytes | None:
        """Which of the leaves of a missing block are needed, one byte for each; None for all."""

    def joined(self, convoy: Convoy) -> None: ...
    def arrived(self, piece: Piece) -> None: ...
    def leave(self) -> None: ...


class Convoy:
    """``on_fault`` takes whatever the source raised; it ends the run. ``spent`` is the reader's time."""

    def __init__(
        self,
        level: int,
        disks: Sequence[Disk],
        *,
        lock: threading.Lock,
        tuning: Tuning,
        read: Callable[[Disk, Piece, Spent], Filling],
        on_fault: Callable[[BaseException], None],
    ) -> None:
        self.level = level
        self.disks = disks
        self.wake = threading.Condition(lock)
        self.pool = Pool(tuning.windows[level], tuning.block)
        self.spent = Spent()
        self.travellers: set[Traveller] = set()
        self.closed = False
        self.slower: Convoy | None = None
        self.may_depart: Callable[[], bool] = lambda: True
        self._lock = lock
        self._tuning = tuning
        self._read = read
        self._on_fault = on_fault
        self._position = (0, 0)
        self._reading: deque[Piece] = deque()
        self._started = False

    def join(self, traveller: Traveller) -> None:
        """Take a traveller along from now on; it leaves another convoy first. Lock held."""
        self.travellers.add(traveller)
        traveller.joined(self)
        if not self._started:
            self._started = True
            self._start()
        self.wake.notify_all()

    def _start(self) -> None:
        for number in range(self._tuning.readers[self.level]):
            name = f"reader-{self.level}-{number}"
            threading.Thread(target=self._run, name=name, daemon=True).start()

    def part(self, traveller: Traveller) -> None:
        """Forget a traveller. Lock held."""
        self.travellers.discard(traveller)
        self.wake.notify_all()

    def look(self) -> None:
        """A traveller has no work left: have a reader see who is to blame. Lock held."""
        self.wake.notify()

    def close(self) -> None:
        """End the readers. Lock held."""
        self.closed = True
        self.wake.notify_all()

    def _run(self) -> None:
        try:
            while (piece := self._next()) is not None:
                piece.filling = self._read(self.disks[piece.disk], piece, self.spent)
                self._deliver(piece)
        except BaseException as error:  # noqa: BLE001 - a reader that ends silently would leave lanes waiting
            self._on_fault(error)

    def _next(self) -> Piece | None:
        with self._lock:
            while not self.closed:
                departs = self.may_depart()
                place = self._find() if departs else None
                if place and self.pool:
                    return self._take(*place)
                if place and self._shed():
                    continue
                with self.spent.on(OTHERS) if place or not departs else nullcontext():
                    self.wake.wait(self._tuning.nap_seconds)
            return None

    def _find(self) -> tuple[int, int] | None:
        """The next block, going round, that anybody lacks."""
        for disk, start in self._round():
            found = [at for who in self.travellers if (at := who.missing[disk].find(1, start)) >= 0]
            if found:
                return disk, min(found)
        return None

    def _round(self) -> Iterator[tuple[int, int]]:
        disk, block = self._position
        yield disk, block
        for step in range(1, len(self.disks) + 1):
            yield (disk + step) % len(self.disks), 0

    def _take(self, disk: int, block: int) -> Piece:
        self._position = (disk, block + 1)
        piece = Piece(self, disk, block)
        self._reading.append(piece)
        for traveller in self.travellers:
            if traveller.missing[disk][block]:
                traveller.missing[disk][block] = 0
                traveller.pieces.add(piece)
                piece.want(traveller.lacks(disk, piece.leaves))
                piece.users.add(traveller)
        return piece

    def _deliver(self, piece: Piece) -> None:
        """Hand over what was read, and what waited for it: hosts like to be written in order."""
        with self._lock:
            piece.filled = True
            while self._reading and self._reading[0].filled:
                first = self._reading.popleft()
                first.release(self)
                for user in list(first.users):
                    cast(Traveller, user).arrived(first)

    def _shed(self) -> bool:
        """Send laggards to the next convoy: the window is full of what they lack, while faster ones have no work."""
        if self.slower is None or len(self.travellers) < 2:
            return False
        long, short = self._tuning.laggard_seconds, self._tuning.leader_seconds
        slow, slow_at_once = self._slow(long), self._slow(short)
        laggards = [
            who
            for who in self.travellers
            if who.pieces and (who.pace.rate(long, inf, share=BUSY) < slow or who.pace.limit() < slow_at_once)
        ]
        for laggard in laggards:
            laggard.leave()
            self.slower.join(laggard)
        return bool(laggards)

    def _slow(self, least: float) -> float:
        """The rate below which one lags behind the best who have no work, judged by ``least`` seconds or more."""
        rates = [who.pace.rate(least, 0.0) for who in self.travellers if not who.pieces]
        return self._tuning.laggard * max(rates, default=0.0)
