"""One job from start to end: the source, the lanes and convoys, who is stuck, and what is told to the parent."""

from __future__ import annotations

import sys
import threading
import time
import traceback
from collections.abc import Callable

from .convoy import Convoy, Piece
from .disk import Disk, Filling
from .events import Event, Failed, Progress
from .faults import Fault, bad_lane, cancelled, source_fault_of, stalled, stopped
from .job import Cancel, Command, Job, Join, LaneJob, Limit, Publish, Stop
from .lane import Lane
from .limiter import Bucket
from .ports import Drivers, Host
from .progress import Throttle
from .seal import Seal, seal
from .spent import Spent
from .tuning import Tuning
from .watch import Watch


class Run:
    """``emit`` is called from any thread, in the order in which things are true."""

    def __init__(
        self, job: Job, drivers: Drivers, emit: Callable[[Event], None], *, tuning: Tuning | None = None
    ) -> None:
        self.lock = threading.Lock()
        self.job, self.drivers, self.emit = job, drivers, emit
        self.tuning = tuning or Tuning()
        self.seals = job.seals
        self.bucket = Bucket(job.bandwidth)
        self.lanes = {lane.id: Lane(self, lane) for lane in job.lanes}
        self._disks: list[Disk] = []
        self._ready = False
        self._ready_at = 0.0
        self._first_after: float | None = None
        self._sealed = not self.seals
        self._fault: Fault | None = None
        self._news = threading.Condition(self.lock)
        self._convoys: list[Convoy] = []
        self._source_watch = Watch()
        self._stopped_at: float | None = None
        self._throttle = Throttle(0.25, 2.0)

    def start(self) -> None:
        threading.Thread(target=self._open_source, name="source", daemon=True).start()
        for lane in self.lanes.values():
            lane.start()

    # The source

    def _open_source(self) -> None:
        try:
            with self._source_watch:
                host = self._connect_source()
                disks = [
                    Disk.open(
                        host,
                        spec,
                        leaf=self.job.leaf_size,
                        block=self.tuning.block,
                        folder=self.job.manifests,
                        watch=self._source_watch,
                    )
                    for spec in self.job.source.disks
                ]
            self._set_off(disks)
        except BaseException as error:  # noqa: BLE001 - whatever ends the source is reported
            self.source_failed(error)

    def _connect_source(self) -> Host | None:
        address = self.job.source.host
        if address is None:
            return None
        return self.drivers.open_driver(address.kind, address.settings, address.secrets).__enter__()

    def _set_off(self, disks: list[Disk]) -> None:
        with self.lock:
            self._disks = disks
            for level in range(len(self.tuning.windows)):
                self._convoys.append(self._convoy(level))
            self._convoys[0].may_depart = self._all_aboard
            self._ready_at = time.monotonic()
            for faster, slower in zip(self._convoys, self._convoys[1:], strict=False):
                faster.slower = slower
            self._ready = True
            self._tell_all()
            if self.seals:
                sealing = Seal(disks, self._news.notify_all)
                self._convoys[0].join(sealing)
                threading.Thread(target=self._seal, args=(sealing,), name="seal", daemon=True).start()

    def _all_aboard(self) -> bool:
        """Whether the first convoy need not wait for lanes any more, so that it reads each block only once."""
        waiting = [lane for lane in self.lanes.values() if not lane.aboard]
        passed = time.monotonic() - self._ready_at
        if self._first_after is None and len(waiting) < len(self.lanes):
            self._first_after = passed
        late = passed > self.tuning.patience_seconds + (self._first_after or 0.0) / 2
        return not any(lane.copies_source for lane in waiting) if late else not waiting

    def look_at_departure(self) -> None:
        """A lane is aboard, or never will be. Lock held."""
        if self._convoys:
            self._convoys[0].wake.notify_all()

    def _convoy(self, level: int) -> Convoy:
        return Convoy(
            level,
            self._disks,
            lock=self.lock,
            tuning=self.tuning,
            read=self._read,
            on_fault=self.source_failed,
        )

    def _read(self, disk: Disk, piece: Piece, spent: Spent) -> Filling:
        with self._source_watch:
            return disk.fill(piece.block, piece.buffer.view, spent, piece.wanted)

    def _seal(self, sealing: Seal) -> None:
        try:
            with self.lock:
                while not sealing.complete:
                    if self._fault or self._stopped_at:
                        return
                    self._news.wait(self.tuning.nap_seconds)
                self._convoys[0].part(sealing)
            self.check_source()
            event = seal(self._disks, self.job.manifests)
            with self.lock:
                self._sealed = True
                self.emit(event)
                self._tell_all()
        except BaseException as error:  # noqa: BLE001 - whatever ends the source is reported
            self.source_failed(error)

    def source_failed(self, error: BaseException) -> None:
        """End the run for all who still need the source."""
        fault = self._source_fault(error)
        if fault.code == "FAILED":
            traceback.print_exception(error, file=sys.stderr)
        with self.lock:
            if self._fault or self._stopped_at:
                return
            self._fault = fault
            self.emit(Failed(None, fault.code, fault.text, fault.action, fault.permanent, fault.kept))
            for convoy in self._convoys:
                convoy.close()
            self._tell_all()
        for lane in self.lanes.values():
            lane.source_failed(fault)

    def _source_fault(self, error: BaseException) -> Fault:
        """What is staged was compared with the digests, where they are known: it is as good with another source."""
        fault = source_fault_of(error)
        fault.kept = fault.kept or not self.seals
        return fault

    def _tell_all(self) -> None:
        self._news.notify_all()
        for lane in self.lanes.values():
            lane.news.notify_all()

    # What lanes ask

    @property
    def writers(self) -> int:
        """Threads for a lane that sets off now."""
        return self.tuning.writers_alone if self._open_lanes() == 1 else 1

    @property
    def few(self) -> bool:
        """Whether lanes are so few that the disks gain by more threads."""
        return self._open_lanes() <= self.tuning.few_lanes

    def _open_lanes(self) -> int:
        return sum(not lane.reported for lane in self.lanes.values())

    def disks_for(self, lane: Lane) -> list[Disk]:
        """The disks, once they are open."""
        with self.lock:
            while not self._ready:
                lane.check()
                lane.news.wait(self.tuning.nap_seconds)
            return self._disks

    def await_digests(self, lane: Lane) -> None:
        with self.lock:
            while not self._sealed:
                lane.check()
                lane.news.wait(self.tuning.nap_seconds)

    def check_source(self) -> None:
        """SOURCE_CHANGED, for the whole run, when the source was touched since it was opened."""
        try:
            with self._source_watch:
                for disk in self._disks:
                    disk.check_unchanged()
        except BaseException as error:  # noqa: BLE001 - whatever ends the source is reported
            self.source_failed(error)
            raise self._source_fault(error) from None

    def first_convoy(self) -> Convoy:
        return self._convoys[0]

    # What the parent asks

    def obey(self, command: Command) -> None:
        match command:
            case Publish(lane) if lane in self.lanes:
                self.lanes[lane].publish()
            case Cancel(lane) if lane in self.lanes:
                self.lanes[lane].cancel(cancelled())
            case Limit(rate, None):
                self.bucket.limit(rate)
            case Limit(rate, lane) if lane in self.lanes:
                self.lanes[lane].bucket.limit(rate)
            case Join(lane_job):
                self._admit(lane_job)
            case Stop(None):
                self._stop()
            case Stop(lane) if lane in self.lanes:
                self.lanes[lane].cancel(stopped())

    def _admit(self, job: LaneJob) -> None:
        """Take one more lane along: it boards the first convoy, which goes round until nobody lacks anything."""
        with self.lock:
            fault = self._fault or (stopped() if self._stopped_at else None)
            former = self.lanes.get(job.id)
            if former is not None and not former.reported:
                return
            if former is not None and not former.ended:
                fault = fault or stalled(
                    self.job.stall_seconds
                )  # a thread that hangs there may wake and write
            if not self.job.fits(job):
                fault = fault or bad_lane()
            if fault is None:
                lane = Lane(self, job)
                self.lanes = {**self.lanes, job.id: lane}
                lane.start()
            else:
                self.emit(Failed(job.id, fault.code, fault.text, fault.action, fault.permanent, True))

    def _stop(self) -> None:
        with self.lock:
            self._stopped_at = self._stopped_at or time.monotonic()
            for convoy in self._convoys:
                convoy.close()
            self._tell_all()
        for lane in self.lanes.values():
            lane.cancel(stopped())

    # The clock

    def tick(self) -> bool:
        """Look after what hangs and report progress; to be called a few times a second. False when all is over."""
        self._look_at_source()
        for lane in self.lanes.values():
            self._look_at(lane)
        self._tell_progress()
        return not self._over()

    def _look_at_source(self) -> None:
        if self._source_watch.stuck_for() > self.job.stall_seconds:
            self.source_failed(stalled(self.job.stall_seconds))

    def _look_at(self, lane: Lane) -> None:
        if lane.reported:
            return
        if lane.watch.stuck_for() > self.job.stall_seconds:
            lane.abandon(stalled(self.job.stall_seconds))
        elif lane.failed_for() > self.tuning.grace_seconds or self._stopped_for() > self.tuning.grace_seconds:
            lane.abandon(stopped())

    def _stopped_for(self) -> float:
        return time.monotonic() - self._stopped_at if self._stopped_at else 0.0

    def _tell_progress(self) -> None:
        read = sum(disk.read for disk in self._disks)
        lanes = [lane for lane in self.lanes.values() if not lane.reported]
        if self._throttle.due((read, [lane.done() for lane in lanes])):
            self.emit(Progress({lane.id: lane.progress() for lane in lanes}, read))

    def _over(self) -> bool:
        with self.lock:
            settled = self._sealed or self._fault is not None or self._stopped_at is not None
            return settled and all(lane.reported for lane in self.lanes.values())
