"""Cases and how they are run: everything of a case once a round, shuffled, until its time is over."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

from .measure import Cost, Found, cost_of

ENGINE, PEER, LIMIT = "engine", "peer", "limit"
MOST_ROUNDS = 7
SLOW_ROUNDS = 1


@dataclass(frozen=True)
class Entry:
    """One program in a case. ``prepare`` is not measured. ``role``: engine, peer or limit (no copy at all).

    ``proven``: every byte is read back from the target and compared. ``compared`` is false for what has a measure of
    its own. ``slow`` ones are run less often.
    """

    name: str
    work: Callable[[], Found]
    role: str = PEER
    prepare: Callable[[], None] = lambda: None
    proven: bool = False
    slow: bool = False
    daemons: Sequence[int] = ()


@dataclass
class Case:
    """``share`` is the part of the whole time that the case may take. ``clear`` removes what an entry left. ``data``
    are the bytes that each host needs at least; ``notes`` may still be added to while the case runs."""

    name: str
    about: str
    share: float
    entries: list[Entry]
    clear: Callable[[], None] = lambda: None
    notes: list[str] = field(default_factory=list)
    data: int = 0


@dataclass
class Result:
    case: str
    about: str
    entries: dict[str, Entry]
    costs: dict[str, list[Cost]]
    notes: list[str]
    data: int = 0


Making = Callable[[], AbstractContextManager[Case]]
Tell = Callable[[str], None]


def measure(makings: Sequence[Making], *, rounds: int, seconds: float, tell: Tell) -> list[Result]:
    """Run all cases, one after the other; what can not begin before ``seconds`` are over is left out and named."""
    results: list[Result] = []
    end = time.monotonic() + seconds
    for making in makings:
        if time.monotonic() > end:
            tell("the time is over: not all cases were run")
            break
        with making() as case:
            results.append(_run(case, rounds, case.share * seconds, tell))
    return results


def _run(case: Case, rounds: int, seconds: float, tell: Tell) -> Result:
    entries = {entry.name: entry for entry in case.entries}
    costs: dict[str, list[Cost]] = {name: [] for name in entries}
    took: dict[str, float] = {}
    began = time.monotonic()
    for number in range(rounds):
        names = [name for name in entries if number < SLOW_ROUNDS or not entries[name].slow]
        if number and time.monotonic() - began + sum(took[name] for name in names) > seconds:
            break
        random.Random(number).shuffle(names)
        for name in names:
            tell(f"{case.name}, round {number + 1}: {name}")
            at = time.monotonic()
            costs[name].append(_once(case, entries[name]))
            took[name] = time.monotonic() - at
    return Result(case.name, case.about, entries, costs, case.notes, case.data)


def _once(case: Case, entry: Entry) -> Cost:
    try:
        entry.prepare()
        return cost_of(entry.work, own=entry.role == ENGINE, daemons=entry.daemons)
    finally:
        case.clear()
