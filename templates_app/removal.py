"""Taking images away: from removed providers, after a cancel, and of versions that nothing uses any more."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from datetime import datetime, timedelta
from itertools import takewhile
from typing import Any

from django.conf import settings
from django.db import transaction
from django.db.models import Q, QuerySet
from django.utils import timezone

from providers_app.connections import CALL_SECONDS
from providers_app.drivers.base import Image, Survey
from providers_app.drivers.errors import DriverError, Refused
from providers_app.hostcalls import Stopped
from providers_app.models import Provider
from rasweb.refusals import Refusal
from rasweb.rows import locked, standing
from templates_app import guests
from templates_app.leases import ask
from templates_app.models import DistributionTarget, Event, PublishedImage, Template, TemplateVersion
from templates_app.models.target import LONGEST_PAUSE, to_be_tried
from templates_app.models.template import BUSY
from templates_app.models.work import error
from templates_app.states import Desired, GuestPhase, Phase, TemplatePhase

log = logging.getLogger(__name__)

REMOVE_SECONDS = 300.0
VERSIONS_KEPT = 2
IN_USE_PAUSE = LONGEST_PAUSE


def due() -> Iterable[tuple[str, int]]:
    """Removals, and cancelled copies to clean up, on providers that are there."""
    if not _ordered.pks():
        return
    waiting = _ready().filter(Q(desired=Desired.ABSENT) | Q(cancel=True), phase=Phase.WAITING)
    for pk in waiting.order_by().values_list("pk", flat=True):
        yield "remove", pk


@standing
def _ordered() -> QuerySet[DistributionTarget]:
    leaving = DistributionTarget.objects.filter(Q(desired=Desired.ABSENT) | Q(cancel=True))
    return leaving.filter(phase=Phase.WAITING, claim=None)


def superfluous() -> Iterable[tuple[str, int]]:
    """Targets with images to retire, on providers that are there."""
    holders = PublishedImage.objects.filter(Q(version__in=_old_versions()) | Q(spoilt=True)).values("target")
    if not holders.exists():
        return
    idle = _ready().filter(phase=Phase.INSTALLED, template__phase=TemplatePhase.READY, pk__in=holders)
    for target in idle.select_related("template", "wanted_version"):
        if _superfluous(target).exists():
            yield "retire", target.pk


def work(pk: int) -> None:
    """Carry out a removal, or clean up after a cancel, of one target."""
    target = _get(pk)
    if target is None or target.phase != Phase.WAITING or not target.provider.available:
        return
    if target.template.in_maintenance or target.template.given_up:
        return
    if target.desired == Desired.ABSENT:
        _remove(target)
    elif target.cancel:
        _clean_up(target)


def retire(pk: int) -> None:
    """Delete the images that nobody needs any more from one provider."""
    target = _get(pk)
    if target is None or target.phase != Phase.INSTALLED or not _take(target, Phase.INSTALLED):
        return
    try:
        images = takewhile(lambda _: _is_ready(target.template), _superfluous(target))
        notes = [_retire(target, image) for image in images]
        versions = target.template.versions.filter(retired_at=None, published=None)
        versions.exclude(pk__in=_kept(target)).update(retired_at=timezone.now())
        target.release(Phase.INSTALLED, " ".join(filter(None, notes)) or "Retired old images.")
    except Stopped:
        log.info("%s: the claim was lost, stopped", target)
    except DriverError as fault:
        pause = IN_USE_PAUSE if fault.code == "IN_USE" else None
        target.release(Phase.INSTALLED, f"Old images stay for now: {fault.text}", next_try_at=later(pause))


def _is_ready(template: Template) -> bool:
    """Whether it still is: maintenance may have been ordered since the target was claimed."""
    return Template.objects.filter(pk=template.pk, phase=TemplatePhase.READY).exists()


def _take(target: DistributionTarget, to: Phase, **fields: Any) -> bool:
    """Claim a target, unless its template is in maintenance by now: nothing of it changes then."""
    with transaction.atomic():
        return not _suspended(target) and target.take(to, **fields)


def _suspended(target: DistributionTarget) -> bool:
    """Whether nothing may be removed; locks the template, so that this stays so for the transaction."""
    template = locked(Template.objects.filter(pk=target.template_id)).first()
    return template is None or template.in_maintenance or template.given_up


def _retire(target: DistributionTarget, image: PublishedImage) -> str:
    """Delete one image. One that was changed by hand is left to the administrator; the note says so."""
    mark = target.template.mark(version=image.version.number, disk=image.disk, digest=image.digest)
    note = ""
    try:
        ask(target, target.provider, "remove", timeout=REMOVE_SECONDS, name=image.name, mark=mark)
    except Refused as refused:
        if not image.spoilt or refused.code not in ("CONTENT_CHANGED", "NOT_OURS"):
            raise
        note = f"{image.name} was changed by hand and stays there; delete it if nobody needs it."
    image.delete()
    return note


def _remove(target: DistributionTarget) -> None:
    if _guests_left(target) or not _claim(target):
        return
    try:
        for image in _ours(target):
            _delete(target, image, force=target.force)
            target.images.filter(
                name=image.name
            ).delete()  # what is gone is held no more, whatever comes next
        for gone in target.images.select_related("version"):
            _retire(target, gone)  # an image that was deleted by hand leaves a note
        if _ours(target):
            raise Refused(
                f"Images of {target.template} are still on {target.provider}.", code="IN_USE", action="Retry."
            )
        if target.provider_id == target.template.source_provider_id:
            _delete_working_copy(target)
    except Stopped:
        log.info("%s: the claim was lost, stopped", target)
    except DriverError as fault:
        next_try = None if fault.permanent else target.next_try()
        to = Phase.WAITING if next_try else Phase.FAILED
        target.release(to, next_try_at=next_try, **error(fault.code, fault.text, fault.action))
    else:
        _drop(target)


def _claim(target: DistributionTarget) -> bool:
    """Claim it for its removal, unless it was added again or its template went into maintenance meanwhile."""
    with transaction.atomic():
        leaving = DistributionTarget.objects.filter(pk=target.pk, desired=Desired.ABSENT)
        if _suspended(target) or not leaving.exists():
            return False
        if target.template.guests.filter(provider=target.provider_id).exists():
            return False
        return target.take(Phase.REMOVING, started_at=timezone.now(), attempt=target.attempt + 1)


def _clean_up(target: DistributionTarget) -> None:
    """Delete what a cancelled copy left under a side name; only then say that it is cancelled."""
    if not _take(target, Phase.CHECKING, started_at=timezone.now()):
        return
    cause = error("CANCELLED", "The distribution was cancelled.", "Retry when you want it again.")
    try:
        for image in _survey(target).staged:
            if _is_of(target, image):
                _discard(target, image)
    except Stopped:
        log.info("%s: the claim was lost, stopped", target)
    except DriverError as fault:
        target.release(Phase.WAITING, next_try_at=later(), **error(fault.code, fault.text, fault.action))
    else:
        target.release(Phase.FAILED, cancel=False, bytes_done=0, bytes_peak=0, **cause)


def _guests_left(target: DistributionTarget) -> bool:
    """Guests go before their image; those that were ordered to go with it are told once.

    One that its host refuses to delete ends the removal, until that is ordered again.
    """
    living = list(
        target.template.guests.filter(provider=target.provider).select_related("template", "provider")
    )
    waiting = (
        [guest for guest in living if guest.phase != GuestPhase.DELETING] if target.delete_guests else []
    )
    refused = [guest for guest in waiting if guest.failed_at and guest.failed_at > target.changed_at]
    for guest in refused[:1]:
        text = f"The guest VM {guest} could not be deleted: {guest.error_text}"
        target.advance(Phase.FAILED, **error(guest.error_code, text, guest.error_action))
    for guest in waiting if not refused else ():
        with suppress(Refusal):  # somebody moved the guest: the next look tells it
            guests.delete(guest, by="removal of the provider")
    return bool(living)


def _ours(target: DistributionTarget) -> list[Image]:
    """Everything on the host that carries the template's mark, published or staged."""
    survey = _survey(target)
    return [image for image in (*survey.images, *survey.staged) if _is_of(target, image)]


def _survey(target: DistributionTarget) -> Survey:
    survey: Survey = ask(target, target.provider, "survey", timeout=CALL_SECONDS)
    return survey


def _is_of(target: DistributionTarget, image: Image) -> bool:
    mine = target.template.mark()
    return image.mark is not None and (image.mark.installation, image.mark.owner) == (
        mine.installation,
        mine.owner,
    )


def _delete(target: DistributionTarget, image: Image, *, force: bool = False) -> None:
    ask(
        target,
        target.provider,
        "remove",
        timeout=REMOVE_SECONDS,
        name=image.name,
        mark=image.mark,
        force=force,
    )


def _delete_working_copy(target: DistributionTarget) -> None:
    """What a worker that ended may have left of an unfinished maintenance goes with the template."""
    template = target.template
    name, mark = template.working_copy_name, template.mark("working-copy")
    try:
        ask(target, target.provider, "remove_working_copy", timeout=REMOVE_SECONDS, name=name, mark=mark)
    except Refused as refused:
        if refused.code != "NOT_OURS":
            raise


def _discard(target: DistributionTarget, image: Image) -> None:
    """Delete what is staged there; an image that was published under the same name stays."""
    ask(target, target.provider, "discard", timeout=REMOVE_SECONDS, name=image.name, mark=image.mark)


def _drop(target: DistributionTarget) -> None:
    """Nothing of ours is left there: the row goes, and with the last one a template that is being deleted."""
    template = target.template
    with transaction.atomic():
        if not target.report():
            return
        Event.record(target, target.phase, "removed", by=target.owner)
        target.announce()
        target.delete()
        drop_deleted(template)


def drop_deleted(template: Template) -> None:
    """Delete the row of a template that is being deleted and is on no provider any more."""
    fresh = Template.objects.filter(pk=template.pk, phase=TemplatePhase.DELETING, targets=None).first()
    if fresh is not None:
        Event.record(fresh, fresh.phase, "deleted")
        fresh.announce()
        Template.objects.filter(pk=fresh.pk).update(current_version=None)
        fresh.delete()


def _ready() -> QuerySet[DistributionTarget]:
    """Targets that may be worked on now."""
    ready = DistributionTarget.objects.filter(claim=None, provider__in=Provider.objects.available())
    ready = ready.exclude(template__phase=TemplatePhase.DELETING, template__claim__isnull=False)
    return ready.filter(to_be_tried()).exclude(template__phase__in=BUSY)


def _old_versions() -> list[int]:
    """Versions that some host may still hold although they are not among the newest of their template."""
    newer: Counter[int] = Counter()
    old = []
    rows = TemplateVersion.objects.order_by("-number").values_list("pk", "template_id", "retired_at")
    for pk, template, retired in rows:
        newer[template] += 1
        if newer[template] > VERSIONS_KEPT and retired is None:
            old.append(pk)
    return old


def _superfluous(target: DistributionTarget) -> QuerySet[PublishedImage]:
    """Images on this provider of versions that nobody needs there, and those that a new one was put beside."""
    held = target.images.filter(spoilt=False).values("version")
    replaced = Q(spoilt=True, version__in=held)
    return target.images.filter(~Q(version__in=_kept(target)) | replaced).select_related("version")


def _kept(target: DistributionTarget) -> set[int]:
    """Versions that are wanted, among the newest, or used by a guest on this provider."""
    newest = set(target.template.versions.order_by("-number").values_list("pk", flat=True)[:VERSIONS_KEPT])
    used = set(target.template.guests.filter(provider=target.provider).values_list("version_id", flat=True))
    wanted = {target.wanted_version_id, target.installed_version_id, target.template.current_version_id}
    return newest | used | {pk for pk in wanted if pk}


def later(pause: timedelta | None = None) -> datetime:
    """When to look again at what does not hurry and could not be done."""
    usual = timedelta(seconds=settings.RETRY_DELAYS[-1] if settings.RETRY_DELAYS else 600)
    return timezone.now() + (pause or usual)


def _get(pk: int) -> DistributionTarget | None:
    rows = DistributionTarget.objects.select_related("template", "provider", "wanted_version")
    return rows.filter(pk=pk).first()
