"""What a lane takes from its convoy: the blocks that it lacks, and those read for it until they are written."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from contextlib import nullcontext

from .convoy import Convoy, Piece
from .extents import Run
from .progress import Pace
from .spent import Spent


class Intake:
    """The traveller of a lane. ``lacking`` says which leaves of a missing block are needed, as :meth:`lacks` does.

    Lock held for all but ``take``, which takes it.
    """

    def __init__(
        self, lock: threading.Lock, pace: Pace, lacking: Callable[[int, Run], bytes | None], spent: Spent
    ) -> None:
        self.missing: list[bytearray] = []
        self.pieces: set[Piece] = set()
        self.pace = pace
        self._lacking = lacking
        self._spent = spent
        self._arrival = threading.Condition(lock)
        self._queue: deque[Piece] = deque()
        self._in_flight: set[Piece] = set()
        self._convoy: Convoy | None = None

    @property
    def complete(self) -> bool:
        """Whether nothing is left to take or to write."""
        return not self.pieces and not any(1 in missing for missing in self.missing)

    # The lane's writers

    def take(self, over: Callable[[], bool]) -> Piece | None:
        """Wait for the next piece to write; None once it is ``over``."""
        with self._arrival:
            while not over():
                if self._queue:
                    piece = self._queue.popleft()
                    self._in_flight.add(piece)
                    self.pace.begin(piece)
                    return piece
                with self._spent.waiting_for(self._convoy.spent) if self._convoy else nullcontext():
                    self._arrival.wait()
            return None

    def finish(self, piece: Piece, count: int) -> None:
        """Give back a piece of which ``count`` bytes were written."""
        self._in_flight.discard(piece)
        self.pieces.discard(piece)
        piece.release(self)
        self.pace.end(piece, count)
        if not self.pieces and self._convoy:
            self._convoy.look()

    def end(self) -> None:
        """Travel no further; writers that wait look whether it is over."""
        self.leave()
        self._arrival.notify_all()

    def abandon(self) -> None:
        """Never use the buffers again that a hanging writer may touch."""
        for piece in self._in_flight:
            piece.abandon(self)

    # The convoy

    def lacks(self, disk: int, leaves: Run) -> bytes | None:
        return self._lacking(disk, leaves)

    def joined(self, convoy: Convoy) -> None:
        self._convoy = convoy

    def arrived(self, piece: Piece) -> None:
        self._queue.append(piece)
        self._arrival.notify()

    def leave(self) -> None:
        """Leave the convoy; what was not yet begun is missing again."""
        self._queue.clear()
        for piece in self.pieces - self._in_flight:
            self.missing[piece.disk][piece.block] = 1
            piece.release(self)
        self.pieces &= self._in_flight
        if self._convoy:
            self._convoy.part(self)
            self._convoy = None
