"""One host on its way to the version: a thread that follows it from the connection to publishing, and its writers.

The lane's own thread stages, flushes, reads back and publishes; the writers take pieces from the queue. Every call to
the host is made under the lane's watch, so that a hung one is seen and harms nobody else.
"""

from __future__ import annotations

import sys
import threading
import time
import traceback
from collections.abc import Callable
from functools import partial
from typing import Any

from .buffers import Buffer
from .convoy import Piece
from .disk import Disk
from .events import (
    COPYING,
    VERIFYING,
    Differs,
    Failed,
    LaneProgress,
    Phase,
    Published,
    Unbased,
    Verified,
)
from .extents import Run
from .faults import Closed, Fault, content_changed, fault_of
from .intake import Intake
from .job import LaneJob
from .limiter import Bucket
from .ports import Host
from .progress import Pace, Rate
from .proofs import Proofs
from .sender import Sender
from .spent import FLUSH, PREPARE, VERIFY, Spent
from .target import Landed, Target
from .trip import Trip
from .verify import PIECE
from .watch import Watch


class Lane:
    def __init__(self, trip: Trip, job: LaneJob) -> None:
        self.id = job.id
        self.watch = Watch()
        self.spent = Spent()
        self.bucket = Bucket(job.bandwidth)
        self.fault: Fault | None = None
        self._failed_at = 0.0
        self.reported = False
        self.ended = False
        self.verified = False
        self.aboard = all(disk.have for disk in job.disks)
        self.copies_source = any(disk.base and not disk.base.manifest for disk in job.disks)
        self.news = threading.Condition(trip.lock)
        self._trip, self._job = trip, job
        pace = Pace(trip.tuning.laggard_seconds, limit=self.bucket.most)
        self._intake = Intake(trip.lock, pace, self._lacking, self.spent)
        self._proofs = Proofs(trip.lock, self.news, self.spent)
        self._sender = Sender(
            self.bucket, trip.bucket, watch=self.watch, spent=self.spent, lock=trip.lock, check=self.check
        )
        self._targets: list[Target] = []
        self._phase = COPYING
        self._helpers = 0
        self._copied = False
        self._may_publish = False
        self._publishing = False
        self._rate = Rate()

    def start(self) -> None:
        threading.Thread(target=self._run, name=f"lane-{self.id}", daemon=True).start()

    # The lane's own thread

    def _run(self) -> None:
        host: Host | None = None
        try:
            with self.spent.on(PREPARE):
                host = self._connect()
            self._travel(host)
        except BaseException as error:  # noqa: BLE001 - whatever ends a lane is reported
            self.fail(self._explained(error))
        self._arrive(host)
        self._let_go(host)

    def _explained(self, error: BaseException) -> Fault:
        fault = fault_of(error)
        if fault.code == "FAILED" and not isinstance(error, Closed):
            traceback.print_exception(error, file=sys.stderr)
        return fault

    def _connect(self) -> Host:
        address = self._job.host
        with self.watch:
            return self._trip.drivers.open_driver(address.kind, address.settings, address.secrets).__enter__()

    def _travel(self, host: Host) -> None:
        buffer = Buffer(PIECE).view
        with self.spent.on(PREPARE):
            self._stage(host, self._trip.disks_for(self), buffer)
        self._join()
        self._settle(buffer)
        self._trip.await_digests(self)
        if self._trip.seals:
            self._adopt(host, buffer)
        self._trip.check_source()
        self._await_publish()
        self._publish(host)

    def _stage(self, host: Host, disks: list[Disk], buffer: memoryview) -> None:
        tuning = self._trip.tuning
        self._targets = [
            Target(disk, spec, watch=self.watch, spent=self.spent, check=self.check, tuning=tuning)
            for disk, spec in zip(disks, self._job.disks, strict=True)
        ]
        self._intake.missing = [target.missing for target in self._targets]
        self._enter(COPYING if any(not disk.have for disk in self._job.disks) else VERIFYING)
        if not self._trip.seals:
            self._adopt(host, buffer)
        for number, target in enumerate(self._targets):
            if not target.spec.have:
                self.check()
                target.stage(host, self._mark(target), buffer)
                if fault := target.unbased:
                    self._trip.emit(Unbased(self.id, number, fault.code, fault.text))

    def _adopt(self, host: Host, buffer: memoryview) -> None:
        found = [target.adopt(host, buffer, self._sender.receive) for target in self._targets]
        if bad := {number: difference for number, difference in enumerate(found) if difference}:
            for number, difference in bad.items():
                self._trip.emit(Differs(self.id, number, difference.leaves, difference.offset))
            raise content_changed("; ".join(f"disk {number}: {how}" for number, how in bad.items()))

    def _mark(self, target: Target) -> Any:
        return self._trip.drivers.Mark(**dict(target.spec.mark) | {"digest": target.disk.digest})

    def _enter(self, phase: str) -> None:
        self._phase = phase
        self._trip.emit(Phase(self.id, phase))

    def _join(self) -> None:
        with self._trip.lock:
            self.check()
            self.aboard = True
            self._trip.first_convoy().join(self._intake)
            works = self._works()
            self._helpers = len(works)
        for number, work in enumerate(works):
            threading.Thread(target=self._do, args=(work,), name=f"{self.id}-{number}", daemon=True).start()

    def _works(self) -> list[Callable[[], None]]:
        if any(target.staged.begun and target.staged.sink.sequential for target in self._targets):
            return [self._write_all, self._read_back]
        return [self._write_and_help] * self._trip.writers

    def _settle(self, buffer: memoryview) -> None:
        """Flush, journal and read back while the writers go on, until all is proven."""
        while (step := self._next_step(buffer)) is not None:
            what, work = step
            with self.spent.on(what):
                work()
        with self.spent.on(FLUSH):
            for target in self._targets:
                if not target.spec.have:
                    target.flush([])
                    target.check_complete()
                    target.sample_holes(buffer)

    def _next_step(self, buffer: memoryview) -> tuple[str, Callable[[], None]] | None:
        with self._trip.lock:
            while True:
                self.check()
                self._note_copied()
                self._proofs.offer(self._targets)
                for target in self._targets:
                    if target.flush_due() or (self._copied and target.landed):
                        landed, target.landed = target.landed, []
                        return FLUSH, partial(target.flush, landed)
                if (proof := self._proofs.next(self._targets, buffer)) is not None:
                    return VERIFY, proof
                if self._copied and self._proofs.complete():
                    return None
                self.news.wait(self._trip.tuning.nap_seconds)

    def _note_copied(self) -> None:
        if self._copied or not self._intake.complete:
            return
        self._copied = True
        self._intake.end()
        if self._phase == COPYING:
            self._enter(VERIFYING)

    def _await_publish(self) -> None:
        with self._trip.lock:
            self.check()
            self.verified = True
            self._trip.emit(Verified(self.id))
            while not self._may_publish:
                self.check()
                self.news.wait(self._trip.tuning.nap_seconds)
            self.check()
            self._publishing = True

    def _publish(self, host: Host) -> None:
        images = [target.commit(host, self._mark(target)) for target in self._targets]
        adopted = all(target.spec.have for target in self._targets)
        based = any(target.based for target in self._targets)
        self.report(Published(self.id, images, self._sender.sent, adopted, based))

    def _arrive(self, host: Host | None) -> None:
        """Report a failure, after what is staged was removed or let go."""
        with self._trip.lock:
            while self._helpers:
                self.news.wait(self._trip.tuning.nap_seconds)
        kept = [self._dispose(target, host) for target in self._targets if target.staged.begun]
        self.ended = True
        if self.fault:
            self.report(self._failure(self.fault, kept=any(kept)))

    def _dispose(self, target: Target, host: Host | None) -> bool:
        """Close or remove what is staged; True when something is kept."""
        discard = self.fault is not None and not self.fault.kept
        try:
            target.discard(host) if host and discard else target.close()
        except Exception as error:  # noqa: BLE001 - the outcome is known, closing can not change it
            print(f"lane {self.id}: closing failed ({type(error).__name__})", file=sys.stderr, flush=True)
            return True
        return not discard

    def _let_go(self, host: Host | None) -> None:
        try:
            if host is not None:
                with self.watch:
                    host.__exit__(None, None, None)
        except Exception as error:  # noqa: BLE001 - the outcome is known, closing can not change it
            print(
                f"lane {self.id}: disconnecting failed ({type(error).__name__})", file=sys.stderr, flush=True
            )

    # Helpers

    def _do(self, work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - whatever ends a lane is reported
            self.fail(self._explained(error))
        with self._trip.lock:
            self._helpers -= 1
            self.news.notify_all()

    def _write_and_help(self) -> None:
        """Write until all is copied; then, where there are few lanes, help to read back."""
        self._write_all()
        if self._trip.few:
            self._read_back()

    def _read_back(self) -> None:
        self._proofs.help(self._targets, self.check)

    def _write_all(self) -> None:
        while (piece := self._intake.take(self._over)) is not None:
            try:
                self._finish(piece, self._write(piece))
            except BaseException as error:  # noqa: BLE001 - whatever ends a lane is reported
                # First the fault, then the piece: a lane without pieces and without a fault has copied all.
                self.fail(self._explained(error))
                self._finish(piece, None)

    def _over(self) -> bool:
        return self._copied or self.fault is not None

    def _lacking(self, disk: int, leaves: Run) -> bytes | None:
        return self._targets[disk].lacks(leaves)

    def _write(self, piece: Piece) -> Landed:
        target = self._targets[piece.disk]
        data = target.lacking_bytes(piece.leaves)
        if target.already_holds(piece.block):
            return Landed(piece.block, piece.leaves, [], data)
        self._await_proofs(target)
        leaves, spans = target.portion(piece.leaves, piece.filling)
        waiting = partial(self._intake.pace.paused, piece)
        for start, stop in spans:
            part = piece.buffer.view[start - piece.base : stop - piece.base]
            self._sender.send(target.staged.sink, start, part, waiting)
        return Landed(piece.block, piece.leaves, leaves, data)

    def _await_proofs(self, target: Target) -> None:
        """Let reading back keep up where who writes does not help with it: at the end it would have to be awaited."""
        if not target.ahead:
            return
        with self._trip.lock, self.spent.on(VERIFY):
            while target.ahead:
                self.check()
                self.news.wait(self._trip.tuning.nap_seconds)

    def _finish(self, piece: Piece, landed: Landed | None) -> None:
        with self._trip.lock:
            self._intake.finish(piece, landed.data if landed else 0)
            if landed:
                self._targets[piece.disk].land(landed)
            self.news.notify_all()

    # What others do to the lane. Lock held for check

    def check(self) -> None:
        if self.fault:
            raise Closed

    def fail(self, fault: Fault) -> bool:
        """End the lane unless it is over or being published already by its own thread."""
        with self._trip.lock:
            return self._fail(fault)

    def _fail(self, fault: Fault) -> bool:
        if self.fault or self.reported:
            return False
        self.fault = fault
        self._failed_at = time.monotonic()
        self.aboard = True
        self._intake.end()
        self._trip.look_at_departure()
        for condition in (self._sender.closing, self._proofs.work, self.news):
            condition.notify_all()
        return True

    def cancel(self, fault: Fault) -> bool:
        """End the lane from outside: not once publishing began, its outcome is what counts then."""
        with self._trip.lock:
            return not self._publishing and self._fail(fault)

    def source_failed(self, fault: Fault) -> None:
        """The source is gone: that matters to a lane until it is verified."""
        with self._trip.lock:
            if not self.verified:
                self._fail(fault)

    def publish(self) -> None:
        with self._trip.lock:
            self._may_publish = True
            self.news.notify_all()

    def failed_for(self) -> float:
        """Seconds since the lane failed; 0 while it has not."""
        return time.monotonic() - self._failed_at if self.fault else 0.0

    def abandon(self, fault: Fault) -> None:
        """Give up on a lane whose host does not answer; its threads are left to hang."""
        with self._trip.lock:
            self._fail(fault)
            self._intake.abandon()
        self.report(self._failure(self.fault or fault, kept=True))

    def _failure(self, fault: Fault, *, kept: bool) -> Failed:
        return Failed(self.id, fault.code, fault.text, fault.action, fault.permanent, kept)

    def report(self, event: Published | Failed) -> None:
        """Say how it ended; only the first report counts."""
        with self._trip.lock:
            if self.reported:
                return
            self.reported = True
            self._trip.emit(event)

    def done(self) -> int:
        """Bytes of data that are proven or durable at the host."""
        return sum(target.done for target in self._targets)

    def progress(self) -> LaneProgress:
        total = sum(target.total for target in self._targets)
        accepted = sum(target.accepted for target in self._targets)
        spent = {what: round(seconds, 1) for what, seconds in self.spent.seconds().items()}
        return LaneProgress(self._phase, self.done(), total, self._rate.update(accepted), spent)
