"""A copy that is killed half way and goes on; a slow host among others; hosts behind slow links."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

from templates_app.transfer.events import Event, Progress, Published
from templates_app.transfer.process import Engine

from .measure import Found, flush, forget, run_together
from .peers import CP, available
from .rounds import ENGINE, LIMIT, Case, Entry
from .site import Site, half_full, site

MIB = 1 << 20


class Resumed:
    """One lane that was killed half way: ``durable`` bytes were told before."""

    def __init__(self, place: Site, source: Path, notes: list[str]) -> None:
        self.place, self.source, self.notes = place, source, notes
        self.durable = 0

    def break_off(self) -> None:
        self.place.fresh(self.source, 1)
        half = self.place.data(self.source) // 2
        job, environment = self.place.job(self.source, ["t0"]), self.place.environment
        with Engine.start(job, environment=environment) as engine:
            for event in engine.events():
                if isinstance(event, Progress) and (done := sum(lane.done for lane in event.lanes.values())):
                    self.durable = done
                    if done >= half:
                        engine.kill()
        forget(self.source)

    def go_on(self) -> Found:
        found = self.place.to(self.source, 1)
        data = self.place.data(self.source)
        twice = found.sent - (data - self.durable)
        self.notes.append(
            f"Killed when {self.durable / MIB:.0f} of {data / MIB:.0f} MiB were known to be durable; "
            f"sent afterwards: {found.sent / MIB:.0f} MiB, {twice / MIB:.0f} MiB of them once more."
        )
        return replace(found, again=max(0, twice))


def rsync_on(source: Path, targets: list[Path]) -> Found:
    """Update what is there: block by block, whatever the times of the files say."""
    command = ["rsync", "-I", "--inplace", "--no-whole-file", str(source)]
    memory = run_together([[*command, str(target)] for target in targets])
    for target in targets:
        flush(target)
    return Found(memory)


@contextmanager
def resume(folder: Path, size: int, share: float) -> Iterator[Case]:
    with site(folder, "resume") as place:
        source = place.image("half", half_full(size), size)
        place.seal(source)
        target = place.folder / "t0" / "copy.raw"
        notes: list[str] = []
        lane = Resumed(place, source, notes)

        def half() -> None:
            place.fresh(source, 1)
            blocks = str(size // 2 >> 20)
            run_together([["dd", f"if={source}", f"of={target}", "bs=1M", f"count={blocks}", "status=none"]])
            forget(target)
            forget(source)

        entries = [Entry("rasweb, goes on", lane.go_on, ENGINE, lane.break_off, proven=True)]
        entries.append(
            Entry(
                "cp, from the start",
                partial(CP.copy, source, [target]),
                prepare=partial(place.fresh, source, 1),
            )
        )
        if available("rsync"):
            entries.append(Entry("rsync, goes on", partial(rsync_on, source, [target]), prepare=half))
        about = f"{size >> 20} MiB, half holes, to 1 host; killed at half of it, measured from then on."
        yield Case("resume", about, share, entries, place.clear, notes)


@contextmanager
def slow_lane(folder: Path, size: int, share: float) -> Iterator[Case]:
    with site(folder, "slow") as place:
        source = place.image("half", half_full(size), size)
        place.seal(source)
        data = place.data(source)

        def beside() -> Found:
            lanes = [place.lane(source, name, place.address(name)) for name in place.names(4)]
            lanes[3] = place.lane(source, "t3", place.address("t3"), bandwidth=data // 30)
            began, published, wall = time.perf_counter(), set[str](), 0.0

            def act(engine: Engine, event: Event) -> None:
                nonlocal wall
                if isinstance(event, Published):
                    published.add(event.lane)
                    if len(published) == 3:
                        wall = time.perf_counter() - began
                        engine.cancel("t3")

            found = place.distribute(place.job(source, lanes), act)
            return replace(found, wall=wall)

        prepare = partial(place.fresh, source, 4)
        about = (
            f"{size >> 20} MiB, half holes, until 3 hosts have it; a fourth that takes {data // 30 / MIB:.0f} MiB/s "
            "is given up then."
        )
        yield Case(
            "slow lane",
            about,
            share,
            [
                Entry("rasweb, 3 hosts", partial(place.to, source, 3), ENGINE, prepare, proven=True),
                Entry("rasweb, 3 beside a slow one", beside, ENGINE, prepare, proven=True),
            ],
            place.clear,
        )


@contextmanager
def links(folder: Path, size: int, share: float) -> Iterator[Case]:
    """Hosts that take less than the disk gives, as over networks: how near to their limit they are kept."""
    with site(folder, "links") as place:
        source = place.image("half", half_full(size), size)
        place.seal(source)
        data = place.data(source)
        rate = max(1, data // 10)

        def work() -> Found:
            lanes = [place.lane(source, name, place.address(name), bandwidth=rate) for name in place.names(4)]
            return place.distribute(place.job(source, lanes))

        about = f"{size >> 20} MiB, half holes, to 4 hosts that take {rate / MIB:.0f} MiB/s each."
        yield Case(
            "slow links",
            about,
            share,
            [
                Entry("rasweb", work, ENGINE, partial(place.fresh, source, 4), proven=True),
                Entry("the links themselves", lambda: Found(wall=data / rate), LIMIT),
            ],
            place.clear,
        )
