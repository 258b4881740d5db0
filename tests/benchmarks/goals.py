"""What the engine wants to reach, and whether it did."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from .measure import Cost
from .rounds import PEER, Result

Medians = Mapping[str, Mapping[str, Cost]]
MIB = 1 << 20
JOURNAL_STEP, IN_FLIGHT = 64, 40


@dataclass(frozen=True)
class Goal:
    """``measure`` gives the ratio or the number that should be at most ``limit``; KeyError where it was not run."""

    text: str
    limit: float
    measure: Callable[[Medians], float]


@dataclass(frozen=True)
class Verdict:
    text: str
    limit: float
    measured: float

    @property
    def reached(self) -> bool:
        return self.measured <= self.limit


def verdicts(results: list[Result]) -> list[Verdict]:
    medians = {
        result.case: {name: Cost.median_of(costs) for name, costs in result.costs.items() if costs}
        for result in results
    }
    peers = {
        result.case: {name for name, entry in result.entries.items() if entry.role == PEER}
        for result in results
    }
    proven = {
        result.case: {name for name in peers[result.case] if result.entries[name].proven}
        for result in results
    }
    return [
        Verdict(goal.text, goal.limit, measured)
        for goal in [*_of_time(peers, proven), *_of_bytes({result.case: result.data for result in results})]
        if (measured := _measured(goal, medians)) is not None
    ]


def _measured(goal: Goal, medians: Medians) -> float | None:
    try:
        return goal.measure(medians)
    except (KeyError, ValueError, ZeroDivisionError):
        return None


Names = Mapping[str, set[str]]


def _beside(what: str, case: str, one: str, other: str) -> Callable[[Medians], float]:
    return lambda medians: getattr(medians[case][one], what) / getattr(medians[case][other], what)


def _of_time(peers: Names, proven: Names) -> list[Goal]:
    def best(what: str, case: str, names: Names = peers) -> Callable[[Medians], float]:
        def measure(medians: Medians) -> float:
            others = [getattr(medians[case][name], what) for name in names[case] & medians[case].keys()]
            return float(getattr(medians[case]["rasweb"], what) / min(others))

        return measure

    goals = [
        Goal(
            "1 host: time, beside the best program that proves its copy", 0.85, best("wall", "1 host", proven)
        ),
        Goal("1 host: time, beside the best program, proof or not", 0.85, best("wall", "1 host")),
        Goal(
            "1 host: time, beside direct writes", 1.15, _beside("wall", "1 host", "rasweb", "direct writes")
        ),
        Goal("1 host: processor time, beside nbdcopy", 1.0, _beside("cpu", "1 host", "rasweb", "nbdcopy")),
        Goal("4 hosts: time, beside the best program that proves", 1.1, best("wall", "4 hosts", proven)),
        Goal("4 hosts: time, beside the best program, proof or not", 1.1, best("wall", "4 hosts")),
        Goal("4 hosts: processor time, beside the best that proves", 0.5, best("cpu", "4 hosts", proven)),
        Goal("4 hosts: processor time, beside the best, proof or not", 0.5, best("cpu", "4 hosts")),
        Goal("8 hosts: time, beside the best program that proves", 1.0, best("wall", "8 hosts", proven)),
        Goal("8 hosts: time, beside the best program, proof or not", 1.0, best("wall", "8 hosts")),
        Goal("8 hosts: processor time, beside the best that proves", 0.2, best("cpu", "8 hosts", proven)),
        Goal("8 hosts: processor time, beside the best, proof or not", 0.2, best("cpu", "8 hosts")),
    ]
    for name in ("clustered", "scattered"):
        for hosts, limit in (("1 host", 0.12), ("4 hosts", 0.08)):
            cases = (f"2 % {name}, {hosts}", f"2 % {name}, {hosts}, shared blocks")
            goals += [
                Goal(f"{case}: time, beside rsync", limit, _beside("wall", case, "rasweb", "rsync in place"))
                for case in cases
            ]
    return [
        *goals,
        Goal(
            "slow lane: time of 3 hosts beside a slow one, to without it",
            1.1,
            _beside("wall", "slow lane", "rasweb, 3 beside a slow one", "rasweb, 3 hosts"),
        ),
        Goal(
            "slow links: time, to that of the links",
            1.05,
            _beside("wall", "slow links", "rasweb", "the links themselves"),
        ),
        Goal("small: seconds an image costs more than with cp", 0.5, lambda medians: _each(medians["small"])),
        Goal("16-fold size: time, to that of the same data in 1-fold", 1.5, _by_size("wall")),
        *_of_libvirt(),
    ]


def _of_libvirt() -> list[Goal]:
    one, three, cp, link = "rasweb, 1 host", "rasweb, 3 hosts", "cp into the pool, 1 host", "the link itself"
    virsh, daemon = "virsh up, down, cmp, 1 host", "the daemon alone"
    return [
        Goal(f"{case}: {text}", limit, _beside("wall", case, of, to))
        for case, text, limit, of, to in (
            ("libvirt", "time of 1 host, beside cp", 1.9, one, cp),
            ("libvirt", "time of 3 hosts, to that of 1", 1.5, three, one),
            ("libvirt", "time of 1 host, to that of its daemon alone", 1.5, one, f"{daemon}, 1 host"),
            ("libvirt", "time of 3 hosts, to that of their daemons alone", 1.5, three, f"{daemon}, 3 hosts"),
            ("libvirt, links", "time of 1 host, to that of its link", 1.9, one, link),
            ("libvirt, links", "time of 3 hosts, to that of 1", 1.5, three, one),
            ("libvirt, many holes", "time of 1 host, beside virsh that proves", 1.0, one, virsh),
        )
    ]


def _of_bytes(data: Mapping[str, int]) -> list[Goal]:
    def per_data(what: str, case: str, hosts: int = 1) -> Callable[[Medians], float]:
        return lambda medians: getattr(medians[case]["rasweb"], what) / (data[case] * hosts)

    def mib(what: str, case: str, name: str = "rasweb") -> Callable[[Medians], float]:
        return lambda medians: getattr(medians[case][name], what) / MIB

    sent = [
        Goal(f"{case}: bytes sent, to changed leaves", 1.05, per_data("sent", case, hosts))
        for hosts, words in ((1, "1 host"), (4, "4 hosts"))
        for case in (f"2 % clustered, {words}", f"2 % scattered, {words}")
    ]
    return [
        Goal("4 hosts: bytes read from the source, to its data", 1.1, per_data("source", "4 hosts")),
        Goal("8 hosts: bytes read from the source, to its data", 1.1, per_data("source", "8 hosts")),
        *sent,
        Goal(
            "resume: MiB sent once more", JOURNAL_STEP + IN_FLIGHT, mib("again", "resume", "rasweb, goes on")
        ),
        Goal("memory at 8 hosts, MiB", 105, mib("memory", "8 hosts")),
        Goal("memory at 16-fold size, MiB", 105, mib("memory", "16-fold size")),
    ]


def _each(small: Mapping[str, Cost]) -> float:
    return (small["rasweb"].wall - small["cp -r"].wall) / 64


def _by_size(what: str) -> Callable[[Medians], float]:
    return lambda medians: (
        getattr(medians["16-fold size"]["rasweb"], what) / getattr(medians["1-fold size"]["rasweb"], what)
    )
