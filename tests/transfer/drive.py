"""Runs a job inside the test, against hosts in memory."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty, SimpleQueue

from templates_app.transfer.events import Event, Failed, Progress, Published, Sealed, Verified
from templates_app.transfer.job import (
    Address,
    Base,
    Command,
    Job,
    LaneDisk,
    LaneJob,
    Publish,
    SourceDisk,
    SourceJob,
)
from templates_app.transfer.run import Run
from templates_app.transfer.tuning import Tuning

from .memoryhost import World

LEAF = 4096
BLOCK = 4 * LEAF
SMALL = Tuning(
    block=BLOCK,
    windows=(3, 2, 1, 1),
    laggard_seconds=0.004,
    nap_seconds=60,  # so that a wake-up that is missed shows
    journal_bytes=2 * BLOCK,
    unproven_bytes=4 * BLOCK,
    journal_seconds=0.02,
    clear_bytes=3 * LEAF,
    grace_seconds=0.3,
    samples=1000,  # of so small images: all
)
LIMIT_SECONDS = 15.0
MARK = {"installation": "i", "kind": "image", "owner": "o", "version": 1}


@dataclass
class Outcome:
    """What a run told, and how each lane ended."""

    events: list[Event] = field(default_factory=list)
    spent: dict[str, dict[str, float]] = field(default_factory=dict)

    def of(self, lane: str | None) -> Published | Failed | None:
        ends = [e for e in self.events if isinstance(e, Published | Failed) and e.lane == lane]
        assert len(ends) <= 1, "a lane ended twice"
        return ends[0] if ends else None

    def code(self, lane: str | None) -> str:
        end = self.of(lane)
        return end.code if isinstance(end, Failed) else "published" if end else "nothing"

    @property
    def sealed(self) -> Sealed | None:
        return next((event for event in self.events if isinstance(event, Sealed)), None)


def make_job(
    folder: Path,
    lanes: Sequence[str],
    disks: Sequence[str],
    *,
    sealed: Sealed | None = None,
    have: Sequence[str] = (),
    bases: Mapping[str, Base] | None = None,
    stall_seconds: float = 5.0,
) -> Job:
    """A job between hosts in memory. ``bases`` are what lanes begin each disk with, by lane."""
    known = sealed.disks if sealed else [None] * len(disks)
    sources = [
        SourceDisk(ref, made.manifest, made.digest) if made else SourceDisk(ref)
        for ref, made in zip(disks, known, strict=True)
    ]
    digests = [made.digest[:12] if made else "{digest12}" for made in known]
    return Job(
        SourceJob(Address("memory", {"place": "source"}), sources),
        [
            LaneJob(
                lane,
                Address("memory", {"place": lane}),
                [
                    LaneDisk(
                        f"d{number}-{digest}.raw",
                        MARK | {"disk": number},
                        str(folder / "journals" / f"{lane}-{number}"),
                        f"have{number}" if lane in have else None,
                        (bases or {}).get(lane),
                    )
                    for number, digest in enumerate(digests)
                ],
            )
            for lane in lanes
        ],
        str(folder / "manifests"),
        leaf_size=LEAF,
        stall_seconds=stall_seconds,
    )


def drive(
    job: Job,
    world: World,
    *,
    tuning: Tuning = SMALL,
    act: Callable[[Event], Sequence[Command]] = lambda event: (),
    publish: bool = True,
) -> Outcome:
    """Run to the end, which has to come in time. ``act`` answers each event with commands."""
    queue: SimpleQueue[Event] = SimpleQueue()
    outcome = Outcome()
    run = Run(job, world, queue.put, tuning=tuning)  # type: ignore[arg-type] # its Mark is a class, not a method
    run.start()
    deadline = time.monotonic() + LIMIT_SECONDS
    alive = True
    while alive or not queue.empty():
        assert time.monotonic() < deadline, f"no end in sight: {outcome.events}"
        alive = run.tick()
        try:
            event = queue.get(timeout=0.005)
        except Empty:
            continue
        if not isinstance(event, Progress):
            outcome.events.append(event)
        if isinstance(event, Verified) and publish:
            run.obey(Publish(event.lane))
        for command in act(event):
            run.obey(command)
    outcome.spent = {lane.id: lane.spent.seconds() for lane in run.lanes.values()}
    return outcome
