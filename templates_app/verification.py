"""Verification: read the image of a target back from its host, all of it, and compare it with its manifest."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

from django.db import transaction
from django.utils import timezone

from providers_app import health
from providers_app.drivers.errors import away
from rasweb.workers import stopping
from templates_app import lanes
from templates_app.bandwidth import Limits
from templates_app.gate import order
from templates_app.models import DistributionTarget, PublishedImage, Template
from templates_app.models.target import LONGEST_PAUSE
from templates_app.models.work import error
from templates_app.removal import later
from templates_app.states import Phase
from templates_app.transfer import events
from templates_app.transfer.job import Job, LaneJob, SourceDisk
from templates_app.transfer.process import Engine

MOST_AT_ONCE = 8
LOOK_SECONDS = 0.1
BUSY_SECONDS = 30.0  # to wait for who tidies a host; a reading of its own may take longer
PAUSE = LONGEST_PAUSE
GONE = frozenset({"SOURCE_MISSING", "CONTENT_LOST", "MISSING"})


def verify(template: Template) -> list[dict[str, Any]]:
    """Re-read the installed images on every provider that is available, as many at once as are copied at once.

    One row each: ``provider``, ``ok``, ``digest``, ``code``, ``text``, ``bad_leaves`` (None where nothing was
    compared) and ``first_bad`` (``disk`` and ``offset`` in bytes, or None). An image that differs is no longer OK:
    its target fails with CONTENT_CHANGED and can be retried.
    """
    with order(template):
        keys = list(template.targets.values_list("pk", flat=True))
    rows: dict[int, dict[str, Any]] = {}
    places = min(template.max_concurrent, MOST_AT_ONCE)
    with ExitStack() as engines:
        waiting, running = deque(keys), list[Reading]()
        patience = time.monotonic() + BUSY_SECONDS
        while waiting or running:
            busy = deque[int]()
            while waiting and len(running) < places:
                key = waiting.popleft()
                target, row = _take(key)  # reading takes long: each row as it is when its turn comes
                if row is None:
                    running.append(Reading(target, engines))
                elif row["code"] == "BUSY" and time.monotonic() < patience:
                    busy.append(key)
                else:
                    rows[key] = row
            waiting.extend(busy)
            if not running and waiting:
                time.sleep(LOOK_SECONDS)
            for reading in [each for each in running if not each.step()]:
                running.remove(reading)
                rows[reading.target.pk] = reading.row()
    return [rows[key] for key in keys]


def _take(key: int) -> tuple[DistributionTarget, dict[str, Any] | None]:
    """Claim a target to read it, or say in a row why it can not be read."""
    target = DistributionTarget.objects.select_related(
        "provider", "template", "wanted_version", "installed_version"
    ).get(pk=key)
    if not target.provider.available:
        return target, _row(target, "NOT_AVAILABLE", f"{target.provider} is not available.")
    if target.phase != Phase.INSTALLED or target.installed_version_id != target.wanted_version_id:
        text = f"There is no current image of {target.template} on {target.provider}."
        return target, _row(target, "NOT_INSTALLED", text)
    if not target.take(Phase.INSTALLED):
        text = (
            f"The image of {target.template} on {target.provider} is being read or tidied by another process."
        )
        return target, _row(target, "BUSY", text)
    return target, None


class Reading:
    """One claimed target whose images an engine of its own reads, but for the first ``compared`` bytes of data.

    ``bandwidth`` in bytes per second, 0 for none but that of its provider. ``gives_way`` is asked every other second;
    True ends the reading.
    """

    def __init__(
        self,
        target: DistributionTarget,
        engines: ExitStack,
        *,
        bandwidth: int = 0,
        compared: int = 0,
        gives_way: Callable[[], bool] = stopping,
    ) -> None:
        self.target = target
        self._gives_way = gives_way
        self._limits, self._most = Limits(), bandwidth
        job = self._limits.begin_reading(_job(target, compared), target.provider, str(target.pk), bandwidth)
        self._engine = engines.enter_context(Engine.start(job))
        self._events = self._engine.events(timeout=LOOK_SECONDS)
        self._pulse = lanes.Pulse(self._beat, seconds=2 * lanes.BEAT_SECONDS)
        self._done = compared
        self._bad: list[events.Differs] = []
        self._matched: events.Published | None = None
        self._failed: events.Failed | None = None
        self._stopped = False

    def step(self) -> bool:
        """Take in one event of the engine; False when it has ended and the target is settled."""
        for event in self._events:
            self._handle(event)
            if not self._pulse() or self._engine.silent_for > lanes.ENGINE_SILENT_SECONDS:
                self._engine.kill()
            return True
        self._pulse.store(self._settle, self.target)
        return False

    def _beat(self) -> None:
        if not self.target.report():
            self._engine.kill()
        elif self._gives_way() and not self._stopped:
            self._stopped = True
            self._engine.stop()
        else:
            target = self.target
            self._limits.adjust_reading(self._engine, target.provider, str(target.pk), self._most)

    def _handle(self, event: events.Event | None) -> None:
        match event:
            case events.Progress(lanes=progress):
                self._done = max([self._done, *(each.done for each in progress.values())])
            case events.Verified(lane=lane):
                self._engine.publish(lane)
            case events.Published():
                self._matched = event
            case events.Differs():
                self._bad.append(event)
            case events.Failed():
                self._failed = self._failed or event

    def _settle(self) -> None:
        if self._matched:
            self._confirm(self._matched)
        elif self._failed and self._failed.code == "CONTENT_CHANGED":
            with transaction.atomic():
                self.target.spoil(self.target.installed_version)
                changed = error(*self._cause("CONTENT_CHANGED"))
                self.target.release(Phase.FAILED, generation=self.target.generation + 1, **changed)
        elif self._failed and self._failed.code in GONE:
            with transaction.atomic():
                self.target.spoil(self.target.installed_version)
                lost = error("CONTENT_LOST", self._failed.text, "Retry to copy it again.")
                self.target.release(Phase.FAILED, **lost)
        else:
            code, text, _ = self._cause()
            if self._failed and away(code, self._failed.permanent):
                health.suspect(self.target.provider, code, text)
            lasting = PAUSE if self._failed and self._failed.permanent else None
            self.target.release(
                Phase.INSTALLED, f"Not verified: {text}", next_try_at=later(lasting), compared=self._done
            )

    def _confirm(self, matched: events.Published) -> None:
        """What was read is right, so its stamp is that of the right content."""
        now = timezone.now()
        with transaction.atomic():
            for disk, image in enumerate(matched.images):
                held = self.target.held(self.target.installed_version).filter(disk=disk)
                held.update(stamp=image.stamp, verified_at=now)
            self.target.release(Phase.INSTALLED, "Verified.", verified_at=now, next_try_at=None, compared=0)

    def _cause(self, code: str = "") -> tuple[str, str, str]:
        if self._stopped:
            return "STOPPED", "it gave way to other work and goes on later.", ""
        if self._failed is None:
            return code or "FAILED", "The reading ended early.", ""
        return code or self._failed.code, self._failed.text, self._failed.action

    def row(self) -> dict[str, Any]:
        """What came of it, as :func:`verify` returns it."""
        if self._matched:
            return _row(self.target) | {"bad_leaves": 0}
        row = _row(self.target, self.target.error_code or self._cause()[0], self._cause()[1])
        if self._bad:
            first = {"disk": self._bad[0].disk, "offset": self._bad[0].offset}
            row |= {"bad_leaves": sum(bad.leaves for bad in self._bad), "first_bad": first}
        return row


def _job(target: DistributionTarget, compared: int) -> Job:
    """A run in which nothing is sent: the host's own images are compared with the manifests."""
    there = {image.disk: image for image in target.held(target.installed_version)}
    disks = [
        SourceDisk("", lanes.manifest_path(disk), disk.digest) for disk in lanes.wanted(target).disk_versions
    ]
    return lanes.make_job(None, disks, [_from(compared, lanes.target_lane(target, there), target, there)])


def _from(
    compared: int, lane: LaneJob, target: DistributionTarget, there: Mapping[int, PublishedImage]
) -> LaneJob:
    """The lane of a reading that goes on where an earlier one gave way."""
    disks = []
    for number, (disk, known) in enumerate(zip(lane.disks, lanes.wanted(target).disk_versions, strict=True)):
        here = min(compared, known.allocated)
        disks.append(replace(disk, compared=here, stamp=there[number].stamp if number in there else ""))
        compared -= here
    return replace(lane, disks=disks)


def _row(target: DistributionTarget, code: str = "", text: str = "") -> dict[str, Any]:
    version = target.installed_version
    return {
        "provider": target.provider.name,
        "ok": not code,
        "digest": version.digest if not code and version else None,
        "code": code or None,
        "text": text or "The image is as it was published.",
        "bad_leaves": None,
        "first_bad": None,
    }
