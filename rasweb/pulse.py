"""What the processes of one worker set know of each other: a few numbers in memory they share since the fork.

No locks: a process killed at any moment can not leave one behind. Times are on the machine's monotonic clock.
"""

from __future__ import annotations

import time
from enum import IntEnum
from multiprocessing.sharedctypes import RawArray


class Beat(IntEnum):
    """Who says "I am alive"."""

    SENTINEL = 1
    PUSHER = 2
    CANARY = 3


_STOPPING = 0
_board = RawArray("d", 1 + len(Beat))


def renew() -> None:
    """Begin with a memory of its own: what forks a worker set may have forked others before."""
    global _board
    _board = RawArray("d", len(_board))


def stopping() -> bool:
    """Whether this worker set was told to end: work that takes long puts down what it holds and returns."""
    return bool(_board[_STOPPING])


def stop() -> None:
    _board[_STOPPING] = 1


def beat(who: Beat) -> None:
    _board[who] = time.monotonic()


def last(who: Beat) -> float:
    """The monotonic time of the last beat; 0 if there was none."""
    return float(_board[who])
