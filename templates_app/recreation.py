"""Recreating the guests of a template after it changed: asked, verified, then one guest after the other.

Nothing is recreated before every provider of the template was verified.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress

from django.db import transaction
from django.db.models import F, QuerySet

from providers_app import health
from providers_app.drivers.errors import DriverError
from providers_app.models import Provider
from rasweb.refusals import Refusal
from rasweb.rows import locked, standing
from templates_app import guests, lanes, queue
from templates_app.gate import changed_meanwhile, order
from templates_app.models import (
    Event,
    GuestVM,
    ItemPhase,
    RecreateItem,
    RecreateRun,
    Template,
    TemplateVersion,
)
from templates_app.models.guest import LIVE_RUNS
from templates_app.models.work import no_error
from templates_app.states import Desired, GuestPhase, Phase, RunPhase

QUESTION = RecreateRun.QUESTION


def outdated(template: Template) -> int:
    """How many guests are of another version than the current one."""
    return (
        template.guests.exclude(version=template.current_version).exclude(phase=GuestPhase.DELETING).count()
    )


def live_run(template: Template) -> RecreateRun | None:
    return template.runs.filter(phase__in=LIVE_RUNS).first()


def ask(template: Template, version: TemplateVersion, by: str) -> RecreateRun | None:
    """Store the question, so that it survives a closed browser. An older question is replaced. None without guests."""
    if not outdated(template):
        return None
    for old in template.runs.filter(phase__in=LIVE_RUNS):
        _cancel(old, by)
    run = RecreateRun.objects.create(template=template, version=version)
    Event.record(run, "", run.phase, by=by, note=QUESTION)
    run.announce()
    return run


def begin(template: Template, by: str, *, only_responding: bool = False) -> RecreateRun:
    """Yes: verify all providers, then recreate. Also Check again, and Tasks > Recreate guest VMs."""
    with order(template) as fresh:
        run = _open_run(fresh, by)
        if run.phase == RunPhase.RUNNING:
            raise _already(fresh)
        if run.phase == RunPhase.VERIFYING:
            return run
        if not run.advance(RunPhase.VERIFYING, by=by, silent=[], only_responding=only_responding):
            raise changed_meanwhile(run)
        queue.soon("recreate", run.pk)
        return run


def defer(template: Template, by: str) -> RecreateRun:
    """No, or later: the guests stay as they are and marked as outdated; of a run that is under way, the rest."""
    with order(template) as fresh:
        run = _open_run(fresh, by)
        if run.phase == RunPhase.RUNNING:
            return _let_be(run, by)
        if run.phase not in (RunPhase.ASKED, RunPhase.BLOCKED, RunPhase.DEFERRED):
            raise _already(fresh)
        if run.phase != RunPhase.DEFERRED and not run.advance(RunPhase.DEFERRED, by=by):
            raise changed_meanwhile(run)
        return run


def overtake(template: Template, version: TemplateVersion, by: str) -> None:
    """Cancel the order for another version than ``version``, which is current now; what is in hand is finished."""
    for run in template.runs.filter(phase__in=LIVE_RUNS).exclude(version=version):
        _skip(run, "The template changed again.", by)
        for item in run.items.filter(phase=ItemPhase.RUNNING):
            _set(item, ItemPhase.SKIPPED, "The template changed again while this guest VM was recreated.")
        _cancel(run, by)


def due() -> Iterable[tuple[str, int]]:
    """The runs that a worker has to verify."""
    for pk in _to_verify.pks():
        yield "recreate", pk


@standing
def _to_verify() -> QuerySet[RecreateRun]:
    return RecreateRun.objects.filter(claim=None, phase=RunPhase.VERIFYING)


def verify(pk: int) -> None:
    """Check every provider of the template in parallel; go on if all answer, else name the silent ones."""
    run = (
        RecreateRun.objects.select_related("template", "version")
        .filter(pk=pk, phase=RunPhase.VERIFYING)
        .first()
    )
    if run is None or not run.take(RunPhase.VERIFYING):
        return
    listed = run.template.targets.filter(desired=Desired.PRESENT)
    providers = list(Provider.objects.filter(targets__in=listed).distinct())
    inquiry = health.Inquiry(provider for provider in providers if provider.enabled)
    while not inquiry.wait(lanes.BEAT_SECONDS):
        if not run.report():
            return  # somebody else verifies
    answers = inquiry.answers()
    silent = sorted(
        provider.name
        for provider in providers
        if not provider.enabled or isinstance(answers.get(provider.pk), DriverError)
    )
    if silent and not run.only_responding:
        text = f"Not responding: {', '.join(silent)}. Check the provider status."
        run.release(RunPhase.BLOCKED, text, silent=silent)
        return
    with transaction.atomic():
        if run.release(RunPhase.RUNNING, silent=silent):
            _list_items(run, silent)


def pace() -> None:
    """Move the running recreations on: read what guests came to, and start those whose image is there."""
    for run in _running():
        for item in run.items.filter(phase=ItemPhase.RUNNING).select_related("guest__provider"):
            _read(run, item)
        for item in run.items.filter(phase=ItemPhase.TODO).select_related(
            "guest__provider", "guest__template"
        ):
            _start(run, item)
        if not run.items.filter(phase__in=[ItemPhase.TODO, ItemPhase.RUNNING]).exists():
            _finish(run)


@standing
def _running() -> QuerySet[RecreateRun]:
    return RecreateRun.objects.filter(phase=RunPhase.RUNNING).select_related("template", "version")


def _open_run(template: Template, by: str) -> RecreateRun:
    """The order that is open, or a new one; one for a version that is not current any more is replaced."""
    version = template.current_version
    run = live_run(template)
    if run is not None and run.version_id != template.current_version_id and run.phase != RunPhase.RUNNING:
        _cancel(run, by)
        run = None
    if run is None and version is not None:
        run = ask(template, version, by)
    if run is None:
        raise Refusal(f"No guest VMs of {template} are outdated.", "NOTHING_TO_DO")
    return run


def _let_be(run: RecreateRun, by: str) -> RecreateRun:
    """Recreate no more guests than those that are being worked on now."""
    _skip(run, "Left for later.", by)
    if not run.advance(RunPhase.RUNNING, "The rest is left for later.", by):
        raise changed_meanwhile(run)
    return run


def _skip(run: RecreateRun, why: str, by: str) -> None:
    """Leave the guests as they are that no worker has in hand: those still to do, and those ordered already."""
    unread = locked(run.items.filter(phase__in=[ItemPhase.TODO, ItemPhase.RUNNING]))
    for item in unread.select_related("guest__template", "guest__provider"):
        taken_back = item.guest is not None and _take_back(item.guest, why, by)
        if taken_back or item.phase == ItemPhase.TODO:
            _set(item, ItemPhase.SKIPPED, why)


def _take_back(guest: GuestVM, why: str, by: str) -> bool:
    if guest.phase != GuestPhase.RECREATING or guest.claim is not None:
        return False
    return guest.advance(GuestPhase.READY, why, by, wanted_version=None, **no_error())


def _already(template: Template) -> Refusal:
    return Refusal(
        f"The guest VMs of {template} are being recreated already.", "BUSY", "Wait until it is done."
    )


def _list_items(run: RecreateRun, silent: list[str]) -> None:
    run.items.all().delete()
    waiting = run.template.guests.exclude(version=run.version).exclude(phase=GuestPhase.DELETING)
    RecreateItem.objects.bulk_create(
        RecreateItem(
            run=run,
            guest=guest,
            guest_name=guest.name,
            phase=ItemPhase.SKIPPED if guest.provider.name in silent else ItemPhase.TODO,
            text="The provider did not respond." if guest.provider.name in silent else "",
        )
        for guest in waiting.select_related("provider")
    )


def _start(run: RecreateRun, item: RecreateItem) -> None:
    """Guests wait for their provider and for the new image there; where that failed, they stay as they are."""
    guest = item.guest
    if guest is None or guest.phase == GuestPhase.DELETING:
        _set(item, ItemPhase.SKIPPED, "The guest VM was deleted.")
    elif guest.version_id == run.version_id and guest.phase == GuestPhase.READY:
        _set(item, ItemPhase.DONE)
    elif guests.holds(run.template, guest.provider, run.version):
        if guest.provider.available and guest.claim is None and guest.phase not in guests.UNFINISHED:
            with suppress(Refusal):  # somebody moved the guest or the template: the next pass looks again
                _order(run, item, guest)
    else:
        wanted = run.template.targets.filter(desired=Desired.PRESENT, wanted_version=run.version)
        target = wanted.filter(provider=guest.provider).first()
        if target is None or (target.phase == Phase.FAILED and target.provider.available):
            _set(
                item,
                ItemPhase.FAILED,
                f"The image of version {run.version.number} is not on {guest.provider}.",
            )


def _order(run: RecreateRun, item: RecreateItem, guest: GuestVM) -> None:
    """Unless the rest was left for later, or the run cancelled, since this pass read the item."""
    with order(run.template):
        if run.items.filter(pk=item.pk, phase=ItemPhase.TODO, run__phase=RunPhase.RUNNING).exists():
            guests.recreate(guest, by=f"recreation {run.pk}", version=run.version)
            _set(item, ItemPhase.RUNNING)


def _read(run: RecreateRun, item: RecreateItem) -> None:
    guest = item.guest
    if guest is None or guest.phase == GuestPhase.DELETING:
        _set(item, ItemPhase.SKIPPED, "The guest VM was deleted.")
    elif guest.phase == GuestPhase.READY:
        if guest.version_id == run.version_id:
            _set(item, ItemPhase.DONE)
        else:
            _set(item, ItemPhase.FAILED, guest.error_text or "The guest VM was not recreated.")
    elif guest.phase in guests.FAILED:
        _set(item, ItemPhase.FAILED, guest.error_text)
    elif not guest.provider.available and guest.claim is None:
        _set(item, ItemPhase.TODO, "The provider is not responding.")


def _set(item: RecreateItem, phase: ItemPhase, text: str = "") -> None:
    """Unless somebody set it since it was read."""
    if not RecreateItem.objects.filter(pk=item.pk, phase=item.phase).update(phase=phase, text=text):
        return
    RecreateRun.objects.filter(pk=item.run_id).update(revision=F("revision") + 1)
    item.run.announce()


def _finish(run: RecreateRun) -> None:
    spoilt = run.items.filter(phase__in=[ItemPhase.FAILED, ItemPhase.SKIPPED]).count()
    if spoilt:
        run.advance(RunPhase.COMPLETED_WITH_ERRORS, f"{spoilt} guest VMs were not recreated.")
    else:
        run.advance(RunPhase.COMPLETED)


def _cancel(run: RecreateRun, by: str) -> None:
    if not run.advance(RunPhase.CANCELLED, "The template changed again.", by, claim=None, owner=""):
        raise changed_meanwhile(run)
