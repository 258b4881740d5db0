"""What a piece of work took, of all processes that took part: time, processor time, memory, bytes to and from disk."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path
from statistics import median

_LOOK_SECONDS = 0.02
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Found:
    """What only the work itself knows: peak ``memory``; bytes read from the ``source``, ``sent`` to hosts, and sent
    ``again`` after a break; ``wall`` where not all of the time counts."""

    memory: int = 0
    source: int = 0
    sent: int = 0
    again: int = 0
    wall: float | None = None


@dataclass(frozen=True)
class Cost:
    """Seconds of wall and processor time; bytes of memory at the peak of each process, added up; bytes ``read`` from
    and ``written`` to disks by anybody; and what :class:`Found` says, 0 where nobody knows."""

    wall: float
    cpu: float
    memory: int
    read: int
    written: int
    source: int = 0
    sent: int = 0
    again: int = 0

    @classmethod
    def median_of(cls, costs: Sequence[Cost]) -> Cost:
        return cls(*(median(getattr(cost, field.name) for cost in costs) for field in fields(cls)))


def cost_of(work: Callable[[], Found], *, own: bool, daemons: Sequence[int] = ()) -> Cost:
    """Run ``work``, which waits for the processes it starts.

    ``own`` counts the processor time of this process too: it belongs to the engine, which reports to it, while for
    other programs this process only watches. ``daemons`` are running processes that take part.
    """
    used, begun = _used(own, daemons), time.perf_counter()
    found = work()
    wall = time.perf_counter() - begun if found.wall is None else found.wall
    cpu, read, written = (after - before for after, before in zip(_used(own, daemons), used, strict=True))
    moved = (int(read), int(written), found.source, found.sent, found.again)
    return Cost(wall, cpu, found.memory, *moved)


def _used(own: bool, daemons: Sequence[int]) -> tuple[float, float, float]:
    """Processor time, bytes read, bytes written. The kernel adds those of children once they were waited for."""
    whose = [resource.RUSAGE_CHILDREN, *([resource.RUSAGE_SELF] if own else [])]
    spent = [resource.getrusage(who) for who in whose]
    cpu = sum(one.ru_utime + one.ru_stime for one in spent) + sum(_cpu_of(pid) for pid in daemons)
    moved = [_moved_by(pid) for pid in (os.getpid(), *daemons)]
    return cpu, sum(read for read, _ in moved), sum(written for _, written in moved)


def _cpu_of(pid: int) -> float:
    """Seconds of processor time of a process and its children."""
    words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, words[11:15])) / _TICKS


def _moved_by(pid: int) -> tuple[int, int]:
    lines = Path(f"/proc/{pid}/io").read_text().splitlines()
    counts = {name: int(count) for name, _, count in (line.partition(":") for line in lines)}
    return counts["read_bytes"], counts["write_bytes"]


def run_together(commands: Sequence[Sequence[str]]) -> int:
    """Run commands side by side; return the peak memory of all together."""
    running = [
        subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True) for command in commands
    ]
    peaks: dict[int, int] = {}
    try:
        while any(process.poll() is None for process in running):
            for pid in [pid for process in running for pid in _family(process.pid)]:
                peaks[pid] = max(peaks.get(pid, 0), peak_of(pid))
            time.sleep(_LOOK_SECONDS)
    finally:
        for process in running:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    for process in running:
        if process.returncode:
            raise RuntimeError(f"{process.args!r} ended with {process.returncode}")
    return sum(peaks.values())


def _family(pid: int) -> Iterator[int]:
    """A process and what it started, as far as it still runs."""
    yield pid
    with suppress(OSError):
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            yield from _family(int(child))


def peak_of(pid: int) -> int:
    """The most memory a running process had so far, 0 when it is gone. What a fork passes on does not count."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM:")), 0)


def flush(path: Path) -> None:
    """Return when a file, or the names in a folder, are on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def forget(path: Path) -> None:
    """Drop a file from the page cache, so that each run begins alike."""
    flush(path)
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(descriptor)
