"""Maintenance: a startable working copy of the template, and what becomes of the changes."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import asdict
from functools import partial
from typing import Any

from django.db.models import QuerySet

from providers_app import health
from providers_app.connections import CALL_SECONDS
from providers_app.drivers.base import VM, CloneSpec, Survey
from providers_app.drivers.errors import DriverError, Missing, Refused
from providers_app.hostcalls import Stopped
from rasweb.refusals import Refusal
from rasweb.rows import standing
from templates_app import distribution, lanes, queue, recreation, sealing, workingcopy
from templates_app.gate import changed_meanwhile, order
from templates_app.guests import image_refs
from templates_app.leases import ask
from templates_app.models import Template
from templates_app.models.work import error, no_error
from templates_app.states import COPYING_PHASES, Phase, RunPhase, TemplatePhase

log = logging.getLogger(__name__)

COPY_SECONDS = 4 * 3600.0
NEW_VERSION, DISCARD = "new_version", "discard"
UNCHANGED = "Nothing changed; no new version."
_TASKS = {
    TemplatePhase.CREATING: "create",
    TemplatePhase.ENTERING: "enter",
    TemplatePhase.EXITING: "leave",
}


def enter(template: Template, by: str) -> None:
    """Order a working copy. Refused while a copy runs, guests are being recreated, or the source is silent."""
    health.require(template.source_provider)
    with order(template) as fresh:
        if fresh.phase != TemplatePhase.READY:
            raise Refusal(
                f"{fresh} is not ready: {fresh.get_phase_display()}.", "BUSY", "Wait until it is done."
            )
        if fresh.targets.filter(phase__in=COPYING_PHASES).exists():
            raise Refusal(
                f"{fresh} is being distributed.",
                "DISTRIBUTING",
                "Wait until it is done, or cancel the copies.",
            )
        if not fresh.targets.filter(provider=fresh.source_provider, phase=Phase.INSTALLED).exists():
            raise Refusal(
                f"{fresh.source_provider} does not hold an intact image of {fresh}.",
                "NOT_INSTALLED",
                "Retry its distribution first.",
            )
        if fresh.targets.filter(phase=Phase.REMOVING).exists():
            raise Refusal(f"A provider of {fresh} is being removed.", "BUSY", "Wait until it is done.")
        if fresh.guests.filter(claim__isnull=False).exists():
            raise Refusal(f"Guest VMs of {fresh} are being worked on.", "BUSY", "Wait until it is done.")
        if fresh.runs.filter(phase__in=[RunPhase.VERIFYING, RunPhase.RUNNING]).exists():
            raise Refusal(f"Guest VMs of {fresh} are being recreated.", "BUSY", "Wait until it is done.")
        copy = {"vm": fresh.working_copy_name, "by": by}
        if not fresh.advance(TemplatePhase.ENTERING, by=by, maintenance=copy, **no_error()):
            raise changed_meanwhile(fresh)
        queue.soon("enter", fresh.pk)


def leave(template: Template, choice: str, by: str, note: str = "") -> None:
    """Order the end of maintenance: ``new_version`` seals what changed, ``discard`` deletes the working copy."""
    if template.phase != TemplatePhase.MAINTENANCE:
        raise Refusal(f"{template} is not in maintenance.", "NOT_IN_MAINTENANCE")
    if choice not in (NEW_VERSION, DISCARD):
        raise Refusal("Choose to create a new version or to discard the changes.", "BAD_INPUT")
    health.require(template.source_provider)
    if choice == NEW_VERSION:
        workingcopy.require_off(template)
    else:
        workingcopy.check_idle(template)
    order = {**template.maintenance, "choice": choice, "by": by, "note": note}
    order.pop("sealed", None)  # the copy may have been changed since: it is compared again
    fields: dict[str, Any] = {"maintenance": order, "bytes_done": 0, "bytes_total": 0, **no_error()}
    if not template.advance(TemplatePhase.EXITING, by=by, **fields):
        raise changed_meanwhile(template)
    queue.soon("leave", template.pk)


def due() -> Iterable[tuple[str, int]]:
    """The templates that wait for a worker."""
    for template in _ordered():
        yield _TASKS[TemplatePhase(template.phase)], template.pk


@standing
def _ordered() -> QuerySet[Template]:
    return Template.objects.filter(claim=None, phase__in=_TASKS)


def prepare(pk: int) -> None:
    """Make the working copy. Any error: back to Ready, undone."""
    template = _taken(pk, TemplatePhase.ENTERING)
    if template is None:
        return
    try:
        copy = _make_copy(template)
    except Stopped:
        template.release(TemplatePhase.ENTERING, "Stopped; another worker begins again.")
    except DriverError as fault:
        _undo(template)
        template.release(TemplatePhase.READY, maintenance={}, **error(fault.code, fault.text, fault.action))
    else:
        made = {
            "ref": copy.ref,
            "disks": [disk.ref for disk in copy.disks],
            "power": copy.power,
            "definition": asdict(sealing.definition_of(copy)),
        }
        template.release(TemplatePhase.MAINTENANCE, maintenance={**template.maintenance, **made})


def finish(pk: int) -> None:
    """Carry out the chosen end of maintenance. Faults lead back to Maintenance; nothing is lost."""
    template = _taken(pk, TemplatePhase.EXITING)
    if template is None:
        return
    note = ""
    try:
        if template.maintenance["choice"] == NEW_VERSION and "sealed" not in template.maintenance:
            note = _seal(template)
        _remove_copy(template)
        template.release(TemplatePhase.READY, note, maintenance={}, **no_error())
    except Stopped:
        template.release(TemplatePhase.EXITING, "Stopped; another worker begins again.")
    except DriverError as fault:
        template.release(TemplatePhase.MAINTENANCE, **error(fault.code, fault.text, fault.action))


def _seal(template: Template) -> str:
    """Read the working copy; if it changed, it becomes the next version, everywhere. A note if it did not."""
    survey: Survey = ask(template, template.source_provider, "survey", timeout=CALL_SECONDS)
    vm = next((vm for vm in survey.vms if vm.name == template.maintenance["vm"]), None)
    if vm is None:
        raise Missing("The working copy is gone.", code="SOURCE_MISSING", action="Discard the changes.")
    try:
        sealed = sealing.seal(template, vm)
    except sealing.Unchanged:
        return UNCHANGED
    lanes.store(partial(_add_version, template, sealed), template)
    queue.soon("distribute", template.pk)
    return ""


def _add_version(template: Template, sealed: sealing.Sealed) -> None:
    template.refresh_from_db(fields=["maintenance"])
    if "sealed" in template.maintenance:  # it was committed, though the database could not say so
        return
    by, note = template.maintenance["by"], template.maintenance.get("note", "")
    version = sealing.add_version(template, sealed, by, note)
    order = {**template.maintenance, "sealed": version.number, "definition": version.definition}
    if not template.advance(
        TemplatePhase.EXITING, f"Version {version.number}.", current_version=version, maintenance=order
    ):
        raise Stopped
    distribution.want_version(template, version, by)
    sealing.record_source(template, version, sealed)
    recreation.ask(template, version, by)


def _spec(template: Template) -> CloneSpec:
    version = template.sealed_version
    return CloneSpec(
        name=template.maintenance["vm"],
        images=image_refs(template, template.source_provider, version),
        formats=tuple(disk.format for disk in version.disk_versions),
        linked=False,
        definition=version.portable,
        mark=template.mark("working-copy"),
    )


def _make_copy(template: Template) -> VM:
    """Make the working copy of the current version, and of nothing that an earlier worker left there."""
    if template.maintenance.get("lost"):
        text = "The worker that prepared the maintenance ended."
        raise DriverError(text, code="WORKER_LOST", action="Enter maintenance again.")
    try:
        _remove_copy(template)
    except Refused as refused:
        if refused.code != "NOT_OURS":  # what is in the way is said when the copy is made
            raise
    copy: VM = ask(
        template, template.source_provider, "make_working_copy", timeout=COPY_SECONDS, spec=_spec(template)
    )
    return copy


def _remove_copy(template: Template) -> None:
    mark = template.mark("working-copy")
    ask(
        template,
        template.source_provider,
        "remove_working_copy",
        timeout=CALL_SECONDS * 6,
        name=template.maintenance["vm"],
        mark=mark,
    )


def _undo(template: Template) -> None:
    """Remove what was made of a working copy; where that fails too, entering again begins with it."""
    try:
        _remove_copy(template)
    except (DriverError, Stopped) as fault:
        log.warning("%s: the unfinished working copy stays for now: %s", template, fault)


def _taken(pk: int, phase: TemplatePhase) -> Template | None:
    template = (
        Template.objects.select_related("source_provider", "current_version")
        .filter(pk=pk, phase=phase)
        .first()
    )
    if template is None or not template.take(phase):
        return None
    if template.source_provider.available:
        return template
    text = f"{template.source_provider} is not available."
    silent = error("NOT_AVAILABLE", text, "Repeat it when the provider is back.")
    if phase == TemplatePhase.ENTERING:
        template.release(TemplatePhase.READY, maintenance={}, **silent)
    else:
        template.release(TemplatePhase.MAINTENANCE, **silent)
    return None
