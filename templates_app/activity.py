"""What runs now and what ended, over all kinds of work."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from django.db.models import F, Q, QuerySet
from django.urls import reverse
from django.utils.translation import gettext as _

from rasweb.looks import Look
from templates_app import guests
from templates_app.models import DistributionTarget, Event, GuestVM, RecreateRun, Template
from templates_app.states import (
    COPYING_PHASES,
    Desired,
    GuestPhase,
    Phase,
    RunPhase,
    TemplatePhase,
)

TEMPLATE_WORK = (
    TemplatePhase.CREATING,
    TemplatePhase.ENTERING,
    TemplatePhase.EXITING,
    TemplatePhase.DELETING,
)
RUN_WORK = (RunPhase.VERIFYING, RunPhase.RUNNING)
ENDS: dict[str, tuple[str, ...]] = {
    "distributiontarget": (Phase.INSTALLED, Phase.FAILED, "removed", "forgotten"),
    "template": (TemplatePhase.READY, TemplatePhase.MAINTENANCE, TemplatePhase.CREATE_FAILED, "deleted"),
    "guestvm": (
        GuestPhase.READY,
        GuestPhase.CREATE_FAILED,
        GuestPhase.RECREATE_FAILED,
        GuestPhase.LOST,
        "deleted",
        "forgotten",
    ),
    "recreaterun": (
        RunPhase.BLOCKED,
        RunPhase.DEFERRED,
        RunPhase.COMPLETED,
        RunPhase.COMPLETED_WITH_ERRORS,
        RunPhase.CANCELLED,
    ),
}
Row = Template | DistributionTarget | GuestVM | RecreateRun
BAD = {"failed", "create_failed", "recreate_failed", "lost", "blocked", "completed_with_errors"}
PHASES: dict[str, type[Phase] | type[TemplatePhase] | type[GuestPhase] | type[RunPhase]] = {
    "distributiontarget": Phase,
    "template": TemplatePhase,
    "guestvm": GuestPhase,
    "recreaterun": RunPhase,
}


@dataclass(frozen=True)
class Task:
    """Work that runs or waits. ``part`` and ``row`` say which part shows how far it is."""

    key: str
    what: str
    url: str
    template: str
    provider: str
    provider_url: str
    part: str
    row: Row
    since: datetime | None


def active_targets() -> QuerySet[DistributionTarget]:
    """Targets that work or wait for work, the working ones first."""
    in_vain = Q(template__phase=TemplatePhase.CREATE_FAILED, phase=Phase.WAITING, desired=Desired.PRESENT)
    rows = DistributionTarget.objects.exclude(in_vain | Q(phase__in=[Phase.FAILED, Phase.INSTALLED]))
    return rows.select_related("template", "provider", "wanted_version", "installed_version").order_by(
        F("claim").asc(nulls_last=True), "id"
    )


def failed_targets() -> QuerySet[DistributionTarget]:
    """Targets that need a person."""
    rows = DistributionTarget.objects.filter(phase=Phase.FAILED)
    return rows.select_related("template", "provider", "wanted_version", "installed_version")


def busy_guests() -> QuerySet[GuestVM]:
    rows = GuestVM.objects.filter(Q(phase__in=guests.UNFINISHED) | ~Q(wanted_power=""))
    return rows.select_related("template", "provider", "version")


def running_count() -> int:
    """How many pieces of work a worker holds now, waiting ones not counted."""
    moving = [*COPYING_PHASES, Phase.REMOVING]
    return (
        DistributionTarget.objects.filter(phase__in=moving).count()
        + Template.objects.filter(phase__in=TEMPLATE_WORK).count()
        + GuestVM.objects.filter(phase__in=guests.UNFINISHED).count()
        + RecreateRun.objects.filter(phase__in=RUN_WORK).count()
    )


def tasks(limit: int = 200) -> list[Task]:
    """What runs or waits, at most ``limit`` of each kind."""
    return list(_tasks(limit))


def signature() -> str:
    """Changes whenever another row begins or ends: a page that shows another one reads again."""
    return str(last_event().first() or 0)


def last_event() -> QuerySet[Event, int]:
    return Event.objects.order_by("-id").values_list("id", flat=True)[:1]


def finished(limit: int | None = None) -> QuerySet[Event]:
    """Events that end something, newest first."""
    ends = Q()
    for kind, phases in ENDS.items():
        ends |= Q(kind=kind, to_phase__in=phases)
    rows = Event.objects.filter(ends).select_related("template", "provider")
    return rows[:limit] if limit else rows


def phase_label(kind: str, phase: str) -> str:
    known = PHASES.get(kind)
    if known is not None and phase in known.values:
        return str(known(phase).label)
    return {"removed": _("Removed"), "deleted": _("Deleted"), "forgotten": _("Forgotten")}.get(phase, phase)


def event_look(event: Event) -> Look:
    """What an event says about how its subject is now."""
    label = phase_label(event.kind, event.to_phase)
    if event.code == "CANCELLED":
        return Look(_("Cancelled"), "secondary", "ban")
    if event.to_phase in BAD:
        return Look(label, "danger", "alert-triangle")
    if event.to_phase in ENDS.get(event.kind, ()):
        return Look(label, "success", "circle-check")
    return Look(label, "primary", "arrow-right")


def who(event: Event) -> str:
    """The person who ordered it; workers are named by process and shown as such."""
    return _("worker") if "/" in event.by or not event.by else event.by


def _tasks(limit: int) -> Iterator[Task]:
    for template in _templates()[:limit]:
        yield _task(template, "template-work", template.get_phase_display(), template.changed_at)
    for run in _runs()[:limit]:
        yield _task(run, "run-line", _("Recreate guest VMs"), run.created_at)
    for target in active_targets()[:limit]:
        yield _of_target(target)
    for guest in busy_guests()[:limit]:
        yield _task(guest, "guest-state", guest.name, guest.changed_at)


def _templates() -> QuerySet[Template]:
    return Template.objects.filter(phase__in=TEMPLATE_WORK).select_related("source_provider")


def _runs() -> QuerySet[RecreateRun]:
    return RecreateRun.objects.filter(phase__in=RUN_WORK).select_related("template")


def _of_target(target: DistributionTarget) -> Task:
    what = _("Remove") if target.desired == Desired.ABSENT else _("Distribute")
    version = (
        target.wanted_version.number if target.wanted_version and target.desired == Desired.PRESENT else None
    )
    what = _("Distribute version %d") % version if version else what
    return _task(target, "target-progress", what, target.started_at or target.changed_at)


def _task(row: Row, part: str, what: str, since: datetime | None) -> Task:
    template = row if isinstance(row, Template) else row.template
    provider = getattr(row, "provider", None) or getattr(row, "source_provider", None)
    return Task(
        key=f"{row._meta.model_name}-{row.pk}",
        what=str(what),
        url=reverse("template", args=[template.pk]),
        template=template.name,
        provider=provider.name if provider else "",
        provider_url=reverse("provider", args=[provider.pk]) if provider else "",
        part=f"templates_app/parts.html#{part}",
        row=row,
        since=since,
    )
