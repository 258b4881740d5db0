"""Copying one version to the targets that wait for it: one read, many lanes, each with its own fate."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

from django.db import transaction
from django.utils import timezone

from providers_app import health
from providers_app.drivers.base import Image, Survey
from providers_app.drivers.errors import DriverError
from providers_app.models import Provider
from rasweb import workers
from rasweb.quantities import size
from rasweb.rows import locked
from templates_app import bandwidth, lanes, places, preflight, queue
from templates_app.models import DistributionTarget, PublishedImage, TemplateVersion
from templates_app.models.work import error, no_error
from templates_app.places import Crew
from templates_app.settling import fail, put_back, settle_cancelled
from templates_app.states import Desired, Phase
from templates_app.timing import Timing, concluded
from templates_app.transfer import events
from templates_app.transfer.job import Job, LaneJob, SourceDisk
from templates_app.transfer.process import Engine

log = logging.getLogger(__name__)

SPOILT_SOURCE = {
    "SOURCE_CHANGED": ("CONTENT_CHANGED", "is not what was sealed"),
    "SOURCE_MISSING": ("CONTENT_LOST", "is missing"),
}
REPORTED = ("bytes_done", "bytes_total", "rate", "timing")
MOVES = {events.COPYING: Phase.COPYING, events.VERIFYING: Phase.VERIFYING}


def due() -> Iterable[tuple[str, int]]:
    """The templates with targets that may be copied to now."""
    for pk in places.waiting_templates():
        yield "distribute", pk


def work(template_id: int) -> None:
    """Claim what waits for this template, as far as there are free places, and copy it."""
    crew = places.claim(template_id)
    if crew is None:
        return
    ready = _check(crew)
    if ready:
        Copy(crew.source, crew.version, ready).run()
    if template_id in places.waiting_templates():
        queue.soon("distribute", template_id)


def _check(crew: Crew) -> list[tuple[DistributionTarget, dict[int, Image]]]:
    """Look at all hosts of the crew at once; return the targets that may begin, with the images they have already."""
    providers = {provider.pk: provider for provider in [crew.source, *_hosts(crew)]}
    return _passed(crew, health.check(providers.values()))


def _hosts(crew: Crew) -> list[Provider]:
    return [target.provider for target in crew.targets]


def _passed(
    crew: Crew, answers: Mapping[int, Survey | DriverError]
) -> list[tuple[DistributionTarget, dict[int, Image]]]:
    ready = []
    for target in crew.targets:
        answer = answers[target.provider_id]
        if isinstance(answer, DriverError):
            fail(target, answer.code, answer.text, answer.action, permanent=answer.permanent)
            continue
        obstacle = preflight.first_obstacle(
            preflight.findings(target.template, crew.version, target.provider)
        )
        if obstacle is None:
            ready.append((target, _already_there(target, answer)))
        else:
            fail(
                target,
                obstacle.code,
                obstacle.text,
                obstacle.action,
                permanent=obstacle.code != "NOT_AVAILABLE",
            )
    return ready


def _already_there(target: DistributionTarget, survey: Survey) -> dict[int, Image]:
    """Images of the wanted version that carry our mark, by disk: verified instead of sent."""
    names = dict(enumerate(lanes.image_names(target)))
    names |= dict(target.held(lanes.wanted(target)).values_list("disk", "name"))
    mine = target.template.mark()

    def ours(image: Image) -> bool:
        return image.mark is not None and (image.mark.installation, image.mark.owner) == (
            mine.installation,
            mine.owner,
        )

    found = {image.name: image for image in survey.images if ours(image)}
    return {disk: found[name] for disk, name in names.items() if name in found}


class Copy:
    """One run of the engine: follows its events, keeps the claims alive, and settles each target by itself."""

    def __init__(
        self,
        source: Provider,
        version: TemplateVersion,
        ready: Sequence[tuple[DistributionTarget, dict[int, Image]]],
    ) -> None:
        self._source = source
        self._version = version
        self._ready = ready
        self._open = {str(target.pk): target for target, _ in ready}
        self._there = {str(target.pk): there for target, there in ready}
        self._progress: dict[str, events.LaneProgress] = {}
        self._pulse = lanes.Pulse(self._beat)
        self._timing: defaultdict[str, Timing] = defaultdict(Timing)
        self._limits = bandwidth.Limits()
        self._bases: dict[int, lanes.Basis | None] = {}
        self._unbased: dict[int, str] = {}
        self._ordered: set[str] = set()
        self._off: set[int] = set()
        self._under_way: set[str] = set()
        self._newcomers: tuple[Crew, health.Inquiry] | None = None
        self._alone = any(target.error_code == places.ALONE for target, _ in ready)
        self._stopped = False
        self._ending = False

    def run(self) -> None:
        """Copy until every target is settled; what is left when the engine died goes back to waiting."""
        with Engine.start(self._job()) as self._engine:
            for event in self._engine.events(timeout=lanes.BEAT_SECONDS):
                self._handle(event)
                self._watch()
        for target in self._newcomers[0].targets if self._newcomers else ():
            self._pulse.store(partial(put_back, target), target)
        for lane, target in self._open.items():
            late = self._engine.ended and lane not in self._under_way
            self._pulse.store(partial(put_back if late else self._lost, target), target)

    def _job(self) -> Job:
        images = PublishedImage.objects.filter(target__provider=self._source, version=self._version)
        refs = {image.disk: image.ref for image in images.order_by("-spoilt", "pk")}
        disks = [
            SourceDisk(refs[number], lanes.manifest_path(disk), disk.digest)
            for number, disk in enumerate(self._version.disk_versions)
        ]
        job = lanes.make_job(self._source, disks, [self._lane(*each) for each in self._ready])
        return self._limits.begin(job, self._open.values())

    def _lane(self, target: DistributionTarget, there: dict[int, Image]) -> LaneJob:
        self._bases[target.pk] = basis = lanes.basis(target)
        self._unbased.pop(target.pk, None)
        return lanes.target_lane(target, there, basis)

    def _handle(self, event: events.Event | None) -> None:
        match event:
            case events.Progress(lanes=progress):
                self._progress.update(progress)
            case events.Phase(lane=lane, phase=phase):
                self._under_way.add(lane)
                self._move(lane, MOVES.get(phase))
            case events.Unbased(lane=lane, text=text) if lane in self._open:
                self._unbased[self._open[lane].pk] = text
            case events.Verified(lane=lane):
                self._publish(lane)
            case events.Published(lane=lane) if lane in self._open:
                self._settle(lane, partial(self._installed, self._open[lane], event))
            case events.Failed(lane=lane) if lane in self._open:
                self._settle(lane, partial(self._failed, self._open[lane], event))
            case events.Failed(lane=None):
                self._ending = True
                log.warning("copying version %s: %s %s", self._version, event.code, event.text)
                if event.code in SPOILT_SOURCE:
                    self._pulse.store(partial(self._spoil_source, event))

    def _settle(self, lane: str, write: Callable[[], None]) -> None:
        self._pulse.store(write, self._open[lane])
        del self._open[lane]

    def _watch(self) -> None:
        if workers.stopping():
            self._stop()
        if not self._pulse() or self._engine.silent_for > lanes.ENGINE_SILENT_SECONDS:
            self._engine.kill()

    def _beat(self) -> None:
        """Progress, lease and cancel check of every lane, in one transaction; then limits, and who may come along."""
        mine = [*self._open.values(), *(self._newcomers[0].targets if self._newcomers else ())]
        for lane, progress in self._progress.items():
            if lane in self._open:
                self._note(self._open[lane], progress)
        with transaction.atomic():
            lost = {target.pk for target in DistributionTarget.report_all(mine, *REPORTED)}
        for lane, target in list(self._open.items()):
            if target.pk in lost:
                self._give_up(lane)
            elif (target.cancel or target.desired == Desired.ABSENT) and lane not in self._ordered:
                self._ordered.add(lane)
                self._engine.cancel(lane)
        self._heed_switches()
        self._limits.adjust(self._engine, self._open.values())
        if not (self._stopped or self._ending or self._alone):
            self._recruit()

    def _heed_switches(self) -> None:
        """No work on a provider that was switched off. What it has stays there, and the attempt does not count."""
        hosts = {self._source.pk, *(target.provider_id for target in self._open.values())}
        off = Provider.objects.filter(pk__in=hosts, enabled=False)
        self._off = set(off.values_list("pk", flat=True))
        if self._source.pk in self._off:
            self._stop()
        for lane, target in self._open.items():
            if target.provider_id in self._off and lane not in self._ordered:
                self._ordered.add(lane)
                self._engine.stop(lane)

    def _stop(self) -> None:
        if not self._stopped:
            self._stopped = True
            self._engine.stop()

    def _recruit(self) -> None:
        """Take along who waits for this version, as places get free. Their hosts are looked at first, meanwhile."""
        if self._newcomers is None:
            crew = places.claim_more(Crew(self._source, self._version, ()))
            self._newcomers = (crew, health.Inquiry(_hosts(crew))) if crew else None
        elif self._newcomers[1].done:
            crew, inquiry = self._newcomers
            ready = self._pulse.store(lambda: _passed(crew, inquiry.answers()), *crew.targets)
            self._newcomers = None
            for target, there in ready:
                self._take_along(target, there)

    def _take_along(self, target: DistributionTarget, there: dict[int, Image]) -> None:
        lane = str(target.pk)
        self._open[lane], self._there[lane] = target, there
        self._progress.pop(lane, None)
        self._timing.pop(lane, None)
        self._ordered.discard(lane)
        self._under_way.discard(lane)
        self._engine.join(self._limits.join(self._lane(target, there), target))

    def _note(self, target: DistributionTarget, now: events.LaneProgress) -> None:
        target.bytes_done, target.bytes_total, target.rate = now.done, now.total, int(now.rate)
        target.timing = self._timing[str(target.pk)].note(now.spent)

    def _move(self, lane: str, to: Phase | None) -> None:
        target = self._open.get(lane)
        if target is None or to is None or to not in target.moves[target.phase]:
            return
        if not self._pulse.store(partial(target.advance, to), target):
            self._give_up(lane)

    def _give_up(self, lane: str) -> None:
        """The claim is lost, or the row is gone with a forgotten provider: it is not ours to settle."""
        self._open.pop(lane)
        self._engine.cancel(lane)

    def _publish(self, lane: str) -> None:
        """The last question before the image becomes visible: is this still wanted, and still ours to do?"""
        self._move(lane, Phase.PUBLISHING)
        target = self._open.get(lane)
        if target is not None and not self._pulse.store(target.report, target):
            self._give_up(lane)
        elif target is None or target.cancel or target.desired == Desired.ABSENT:
            self._ordered.add(lane)
            self._engine.cancel(lane)
        else:
            self._engine.publish(lane)

    def _installed(self, target: DistributionTarget, event: events.Published) -> None:
        now = timezone.now()
        took = (now - target.started_at).total_seconds() if target.started_at else 0.0
        with transaction.atomic():
            ours = target.release(
                Phase.INSTALLED,
                self._how(target, event),
                installed_version=self._version,
                verified_at=now,
                bytes_done=target.bytes_total,
                bytes_peak=0,
                compared=0,
                cancel=False,
                attempt=0,
                rate=0,
                timing=concluded(target.timing, took, event.sent),
                reading_from=None,
                **no_error(),
            )
            if not ours:
                return
            target.held(self._version).exclude(name__in=[image.name for image in event.images]).delete()
            for disk, image in enumerate(event.images):
                self._record(target, disk, **asdict(image), verified_at=now)

    def _record(self, target: DistributionTarget, disk: int, *, name: str, **found: Any) -> None:
        PublishedImage.objects.update_or_create(
            target=target,
            version=self._version,
            disk=disk,
            name=name,
            defaults={"spoilt": False, **found},
        )

    def _put_beside(self, target: DistributionTarget, why: str) -> None:
        """What is there already is not what it should be: a new image comes beside it, and that costs no try."""
        with transaction.atomic():
            ours = target.release(
                Phase.WAITING,
                f"{why} A new one is put beside it.",
                generation=target.generation + 1,
                attempt=max(0, target.attempt - 1),
                bytes_done=0,
                bytes_peak=0,
                rate=0,
                reading_from=None,
            )
            for disk, image in self._there[str(target.pk)].items() if ours else ():
                known = {"ref": image.ref, "size": image.size, "stamp": image.stamp}
                digest = self._version.disk_versions[disk].digest
                self._record(target, disk, name=image.name, digest=digest, spoilt=True, **known)

    def _how(self, target: DistributionTarget, event: events.Published) -> str:
        """The history's sentence about a copy: what it took, and what it was built on."""
        how = "was there already" if event.adopted else f"{size(event.sent)} ({event.sent} bytes) sent"
        note, basis = f"Version {self._version.number}: {how}", self._bases.get(target.pk)
        if basis and event.based:
            note += f", built on {basis.label}"
        if basis and (why := self._unbased.get(target.pk)):
            return f"{note}. It could not be built on {basis.label} there: {why}"
        return f"{note}."

    def _failed(self, target: DistributionTarget, event: events.Failed) -> None:
        latest = self._progress.get(str(target.pk))
        if latest is not None and event.kept:
            target.bytes_done = latest.done
        if event.code == "STOPPED":
            off = [host for host in (self._source, target.provider) if host.pk in self._off]
            put_back(target, *(f"{host} was switched off; goes on from where it was." for host in off[:1]))
        elif event.code == "CANCELLED":
            settle_cancelled(target, kept=event.kept)
        elif event.code == "CONTENT_CHANGED" and self._there[str(target.pk)]:
            self._put_beside(target, event.text)
        elif event.code in SPOILT_SOURCE:
            self._read_elsewhere(target, event)
        else:
            if event.code == "SOURCE_UNREACHABLE":
                health.suspect(self._source, event.code, event.text)
            how = {"permanent": event.permanent, "kept": event.kept}
            fail(target, event.code, event.text, event.action, **how)

    def _spoil_source(self, event: events.Failed) -> None:
        """What was read there is not the version, so nobody reads it again before it is proven."""
        code, how = SPOILT_SOURCE[event.code]
        for holder in locked(places.holders(self._version).filter(provider=self._source)):
            holder.spoil(self._version)
            if holder.phase == Phase.INSTALLED and holder.installed_version_id == self._version.pk:
                text = f"The image that was copied from {self._source} {how}."
                holder.release(Phase.FAILED, **error(code, text, "Retry to copy it again."))

    def _read_elsewhere(self, target: DistributionTarget, event: events.Failed) -> None:
        """Go on from another provider that holds the version; what is proven on the target stays."""
        number = self._version.number
        if places.holders(self._version).exists():
            note = f"{self._source} does not hold version {number} intact; goes on from another provider."
            put_back(target, note)
        else:
            text = f"No provider holds an intact image of version {number}."
            action = "Restore the image from a backup, then retry; or make another version current."
            fail(target, event.code, text, action, permanent=True, kept=event.kept)

    def _lost(self, target: DistributionTarget) -> None:
        """The engine crashed, maybe over another host: who came further with it is not charged."""
        latest = self._progress.get(str(target.pk))
        if latest is not None and latest.done > target.bytes_peak:
            target.bytes_done, target.attempt = latest.done, 0
        text = "The copy process ended unexpectedly; it goes on in one of its own."
        fail(target, places.ALONE, text, "It is tried again by itself.", permanent=False)
