"""The figures of the engine, each in one place."""

from __future__ import annotations

from dataclasses import dataclass

from .plan import BLOCK


@dataclass(frozen=True)
class Tuning:
    """``windows`` are the buffers of each convoy, the fastest first: 16 blocks of 4 MiB are 64 MiB in all; ``readers``
    are its threads.

    A lane is a laggard below ``laggard`` of the best lane's own rate, over ``laggard_seconds``; one that is limited
    so far below what the best did in ``leader_seconds`` is known to be one. A journal step is what a resume sends
    again at most: ``journal_bytes``, or what came within ``journal_seconds``; near both ends of an image it is half
    as much as lies before or after, but ``first_journal_bytes`` at least. Where reading back is left to other
    threads than writing, it is ``unproven_bytes`` behind at most, which has to be more than a journal step. Holes
    are made in pieces of ``clear_bytes``. The first convoy waits ``patience_seconds`` for lanes that are not staged
    yet, and half as long again as the first lane took: hosts that copy what they have need about the same time.
    Closing may take ``grace_seconds``. ``samples`` leaves are read of an image before a host makes a copy of it, as
    many others of the copy, and holes of both. A single lane has ``writers_alone`` threads; the writers of at most
    ``few_lanes`` lanes help to read back once all is written. Nobody waits longer than ``nap_seconds`` without
    looking up, though whoever changes something wakes those whom it concerns.
    """

    block: int = BLOCK
    windows: tuple[int, ...] = (10, 3, 2, 1)
    readers: tuple[int, ...] = (2, 1, 1, 1)
    laggard: float = 1 / 3
    laggard_seconds: float = 5.0
    leader_seconds: float = 0.1
    journal_bytes: int = 64 << 20
    first_journal_bytes: int = 16 << 20
    unproven_bytes: int = 128 << 20
    journal_seconds: float = 2.0
    clear_bytes: int = 256 << 20
    patience_seconds: float = 3.0
    grace_seconds: float = 10.0
    nap_seconds: float = 0.25
    samples: int = 64
    writers_alone: int = 2
    few_lanes: int = 8
