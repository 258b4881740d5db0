"""Sealing: what a VM's disks hold becomes an immutable version on the source host."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from django.utils import timezone

from providers_app import health
from providers_app.connections import CALL_SECONDS
from providers_app.drivers import load
from providers_app.drivers.base import VM, Definition, Survey
from providers_app.drivers.errors import DriverError, Missing, NoSpace, Refused, away
from providers_app.hostcalls import Stopped
from rasweb import workers
from rasweb.quantities import size
from templates_app import bandwidth, distribution, lanes, places, queue
from templates_app.leases import ask
from templates_app.models import DiskVersion, PublishedImage, Template, TemplateVersion
from templates_app.models.work import error, no_error
from templates_app.states import Phase, TemplatePhase
from templates_app.transfer import events
from templates_app.transfer.job import SourceDisk
from templates_app.transfer.process import Engine

log = logging.getLogger(__name__)

LANE = "seal"


class Unchanged(Exception):
    """The disks hold exactly what the current version holds, and the VM is what it was made as."""


@dataclass(frozen=True)
class Sealed:
    """A version that is published on the source host, not yet in the database. ``how`` is for the history."""

    disks: list[DiskVersion]
    images: list[events.PublishedImage]
    definition: Definition
    how: str


def create(pk: int) -> None:
    """Make the first version of a new template from its source VM, and let the distribution begin."""
    templates = Template.objects.select_related("source_provider").filter(phase=TemplatePhase.CREATING)
    template = templates.filter(pk=pk).first()
    if (
        template is None
        or not template.source_provider.available
        or not template.take(TemplatePhase.CREATING)
    ):
        return
    try:
        sealed = seal(template, _source_vm(template))
        lanes.store(partial(_begin, template, sealed), template)
    except Stopped:
        _let_go(template, TemplatePhase.CREATING, "Stopped; another worker begins again.")
    except DriverError as fault:
        silent = fault.code == "SOURCE_UNREACHABLE" or away(fault.code, fault.permanent)
        if silent:
            health.suspect(template.source_provider, fault.code, fault.text)
        to = TemplatePhase.CREATING if silent else TemplatePhase.CREATE_FAILED
        _let_go(template, to, **error(fault.code, fault.text, fault.action))
    else:
        queue.soon("distribute", template.pk)


def _let_go(template: Template, to: TemplatePhase, note: str = "", **fields: Any) -> None:
    """Give the claim back; a template that was ordered to be deleted meanwhile has waited for just that."""
    if template.phase == TemplatePhase.CREATING and template.release(to, note, **fields):
        return
    mine = Template.objects.filter(pk=template.pk, claim=template.claim, phase=TemplatePhase.DELETING)
    for deleted in mine:
        deleted.release(TemplatePhase.DELETING, "The creation was given up.")


def _begin(template: Template, sealed: Sealed) -> None:
    version = add_version(template, sealed, template.created_by, "")
    if not template.release(
        TemplatePhase.READY, current_version=version, bytes_done=0, bytes_total=0, **no_error()
    ):
        raise Stopped
    distribution.want_version(template, version, template.created_by)
    record_source(template, version, sealed)


def seal(template: Template, vm: VM) -> Sealed:
    """Copy the disks of ``vm`` to immutable images on the same host, hashing them on the way.

    Raises Unchanged, a DriverError, or Stopped when the claim was lost.
    """
    _check(template, vm)
    number = _next_number(template)
    formats = _published_formats(template, vm)
    lane = lanes.sealing_lane(template, number, vm.disks, formats)
    job = lanes.make_job(template.source_provider, [SourceDisk(disk.ref) for disk in vm.disks], [lane])
    limits = bandwidth.Limits()
    with Engine.start(limits.begin_sealing(job, template.source_provider, LANE)) as engine:
        run = _Run(template, vm, engine, limits)
        for event in engine.events(timeout=lanes.BEAT_SECONDS):
            run.handle(event)
        return run.result()


class _Run:
    """Follows the engine through one sealing."""

    def __init__(self, template: Template, vm: VM, engine: Engine, limits: bandwidth.Limits) -> None:
        self._template = template
        self._vm = vm
        self._engine = engine
        self._pulse = lanes.Pulse(self._beat)
        self._limits = limits
        self._progress = events.LaneProgress("", 0, 0, 0.0)
        self._disks: list[DiskVersion] = []
        self._published: events.Published | None = None
        self._unchanged = False
        self._lost = False
        self._fault: events.Failed | None = None

    def handle(self, event: events.Event | None) -> None:
        match event:
            case events.Progress(lanes=open_lanes) if LANE in open_lanes:
                self._progress = open_lanes[LANE]
            case events.Sealed(disks=disks):
                self._disks = self._disk_versions(disks)
                same = partial(_same_as_current, self._template, self._disks, definition_of(self._vm))
                self._unchanged = self._pulse.store(same, self._template)
            case events.Verified():
                self._publish()
            case events.Published():
                self._published = event
            case events.Failed() if self._fault is None or event.lane:
                self._fault = event
                if event.lane:
                    self._engine.stop()  # without it nothing else needs to be read
        if workers.stopping():
            self._engine.stop()
        if not self._pulse() or self._lost or self._engine.silent_for > lanes.ENGINE_SILENT_SECONDS:
            self._lost = True
            self._engine.kill()

    def result(self) -> Sealed:
        if self._unchanged:
            raise Unchanged
        if self._published and not self._lost:
            how = "copied by the host itself, " if self._published.based else ""
            sent = self._published.sent
            note = f"{how}{size(sent)} ({sent} bytes) sent"
            images = list(self._published.images)
            return Sealed(self._disks, images, definition_of(self._vm), note)
        raise Stopped if self._lost else self._why()

    def _why(self) -> Exception:
        """Why there is no version. An engine that crashed may well crash again, so sealing does not by itself."""
        if self._fault is None and self._engine.crashed and not workers.stopping():
            text = "The process that reads the disks ended unexpectedly."
            return DriverError(text, code=places.ALONE, action="Look at the worker's log, then try again.")
        if self._fault is None or self._fault.code == "STOPPED":
            return Stopped()
        kind = Refused if self._fault.permanent else DriverError
        return kind(self._fault.text, code=self._fault.code, action=self._fault.action)

    def _publish(self) -> None:
        if self._unchanged or not self._pulse.store(self._report, self._template):
            self._engine.cancel(LANE)
        else:
            self._engine.publish(LANE)

    def _report(self, **fields: int) -> bool:
        """Whether the claim is ours and the version still wanted."""
        return self._template.report(**fields) and self._template.phase != TemplatePhase.DELETING

    def _beat(self) -> None:
        self._lost = not self._report(bytes_done=self._progress.done, bytes_total=self._progress.total)
        if not self._lost:
            self._limits.adjust_sealing(self._engine, self._template.source_provider, LANE)

    def _disk_versions(self, sealed: Sequence[events.SealedDisk]) -> list[DiskVersion]:
        formats = _published_formats(self._template, self._vm)
        return [
            DiskVersion(
                name=disk.name,
                format=form,
                size=made.size,
                allocated=made.allocated,
                digest=made.digest,
                manifest=Path(made.manifest).name,
            )
            for disk, form, made in zip(self._vm.disks, formats, sealed, strict=True)
        ]


def add_version(template: Template, sealed: Sealed, by: str, note: str) -> TemplateVersion:
    return TemplateVersion.objects.create(
        template=template,
        number=_next_number(template),
        note=note,
        disks=[asdict(disk) for disk in sealed.disks],
        definition=asdict(sealed.definition),
        created_by=by,
    )


def record_source(template: Template, version: TemplateVersion, sealed: Sealed) -> None:
    """The source host holds the version already: its target is installed, nothing is copied."""
    target = template.targets.select_related("provider").get(provider=template.source_provider)
    PublishedImage.objects.bulk_create(
        PublishedImage(target=target, version=version, disk=disk, **asdict(image))
        for disk, image in enumerate(sealed.images)
    )
    done: dict[str, Any] = {
        "bytes_done": version.allocated,
        "bytes_total": version.allocated,
        "compared": 0,
        "verified_at": timezone.now(),
    }
    note = f"Version {version.number} was sealed here: {sealed.how}."
    if not target.advance(
        Phase.INSTALLED, note, installed_version=version, wanted_version=version, **done, **no_error()
    ):
        raise Stopped


def _source_vm(template: Template) -> VM:
    survey: Survey = ask(template, template.source_provider, "survey", timeout=CALL_SECONDS)
    vm = next((vm for vm in survey.vms if vm.name == template.source_vm), None)
    if vm is None:
        raise Missing(
            f"There is no VM “{template.source_vm}” on {template.source_provider} any more.",
            code="SOURCE_MISSING",
        )
    needed = sum(disk.allocated for disk in vm.disks)
    if survey.free_bytes < needed:
        text = (
            f"{template.source_provider} is too full: needs {size(needed)}, {size(survey.free_bytes)} free."
        )
        raise NoSpace(text, action="Free some space there, then create the template again.")
    return vm


def _check(template: Template, vm: VM) -> None:
    if vm.power == "on":
        raise Refused(f"{vm.name} is running.", code="VM_RUNNING", action="Shut it down, then try again.")
    if vm.problem:
        raise Refused(f"{vm.name} can not be sealed: {vm.problem}", code="PREREQUISITE")
    if not vm.disks:
        raise Refused(f"{vm.name} has no disk.", code="PREREQUISITE")


def _published_formats(template: Template, vm: VM) -> list[str]:
    """The formats of the images, in disk order: the kind's own, or what the disks are."""
    own = load(template.source_provider.kind).publishes
    return [own or disk.format for disk in vm.disks]


def _next_number(template: Template) -> int:
    newest = template.versions.order_by("-number").first()
    return newest.number + 1 if newest else 1


def definition_of(vm: VM) -> Definition:
    """What a version takes over of a VM beside its disks."""
    return Definition(vm.memory_mib or 1024, vm.vcpus or 1, vm.network, vm.hardware)


def _same_as_current(template: Template, disks: list[DiskVersion], definition: Definition) -> bool:
    """Whether there is nothing to seal. A working copy may differ from its version as soon as its host has made it."""
    current = template.current_version
    if current is None:
        return False
    made = Definition(**template.maintenance.get("definition", current.definition))
    digests = [disk.digest for disk in disks]
    return made == definition and [disk.digest for disk in current.disk_versions] == digests
