"""Guest VMs: created, recreated, switched and deleted on the provider that holds their template's image."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import timedelta
from functools import partial
from typing import Any

from django.conf import settings
from django.db import transaction
from django.db.models import Case, Count, F, Q, QuerySet, Value, When
from django.utils import timezone

from providers_app import health
from providers_app.drivers.base import VM, Can, CloneSpec
from providers_app.drivers.errors import DriverError, Refused, Unreachable
from providers_app.hostcalls import Stopped
from providers_app.models import Inventory, Provider
from rasweb.refusals import Refusal, bad_input_refused
from rasweb.rows import locked, standing
from templates_app import queue
from templates_app.gate import changed_meanwhile, order
from templates_app.lanes import store
from templates_app.leases import ask
from templates_app.models import Event, GuestVM, Power, Template, TemplateVersion
from templates_app.models.template import BUSY
from templates_app.models.work import error, no_error, older_than
from templates_app.places import SPARE_WORKERS
from templates_app.states import Desired, GuestPhase

log = logging.getLogger(__name__)

AT_ONCE_PER_PROVIDER = 4
CLONE_SECONDS = 4 * 3600.0
CALL_SECONDS = 300.0
LONGEST_PREFIX = 59  # with the number it is a name of 63
FAILED_KEPT = timedelta(days=7)
UNFINISHED = (GuestPhase.CREATING, GuestPhase.PREPARING, GuestPhase.RECREATING, GuestPhase.DELETING)
_WORK = Q(phase__in=UNFINISHED) | (Q(phase=GuestPhase.READY) & ~Q(wanted_power=""))
FAILED = (GuestPhase.CREATE_FAILED, GuestPhase.RECREATE_FAILED)


def create(template: Template, provider: Provider, count: int, by: str, prefix: str = "") -> list[GuestVM]:
    """Order ``count`` guests of the current version, named ``PREFIX-001`` …; the prefix is the template's name, cut."""
    if not 1 <= count <= 500:
        raise Refusal("Create between 1 and 500 guest VMs at once.", "BAD_INPUT")
    health.require(provider)
    with bad_input_refused("A guest VM with this name was made just now."), order(template) as fresh:
        version = fresh.current_version
        if version is None or not holds(fresh, provider, version):
            raise Refusal(
                f"{provider} does not hold the current version of {fresh}.",
                "NOT_INSTALLED",
                "Distribute the template to it first.",
            )
        names = _free_names(provider, prefix or fresh.name[:LONGEST_PREFIX], count)
        return [_new(fresh, provider, version, name, by) for name in names]


def delete(guest: GuestVM, by: str) -> None:
    """Order a guest and its disks to be deleted. A worker that has it in hand ends first, and cleans up."""
    if guest.phase == GuestPhase.DELETING:
        return
    with order(guest.template):
        if not guest.advance(GuestPhase.DELETING, by=by, **no_error()):
            raise changed_meanwhile(guest)
        queue.soon("guest", guest.pk)


def recreate(guest: GuestVM, by: str, version: TemplateVersion | None = None) -> None:
    """Order new disks from ``version`` (the current one) for one guest; it must be on the guest's provider."""
    with order(guest.template) as template:
        wanted = version or template.current_version
        if wanted is None or not holds(template, guest.provider, wanted):
            raise Refusal(
                f"{guest.provider} does not hold the current version yet.",
                "NOT_INSTALLED",
                "Retry the distribution first.",
            )
        if guest.phase == GuestPhase.CREATE_FAILED:
            moved = guest.advance(GuestPhase.CREATING, by=by, version=wanted, **no_error())
        elif guest.phase in (GuestPhase.READY, GuestPhase.RECREATE_FAILED, GuestPhase.LOST):
            moved = guest.advance(GuestPhase.RECREATING, by=by, wanted_version=wanted, **no_error())
        else:
            raise Refusal(f"{guest} is busy: {guest.get_phase_display()}.", "BUSY", "Wait until it is done.")
        if not moved:
            raise changed_meanwhile(guest)
        queue.soon("guest", guest.pk)


def switch(guest: GuestVM, on: bool, by: str) -> None:
    """Order a guest to be started or stopped."""
    if Can.POWER not in guest.provider.capabilities:
        raise Refusal(
            f"{guest.provider} can not start or stop guest VMs.", "PREREQUISITE", "Use the host's own tools."
        )
    if guest.phase != GuestPhase.READY:
        raise Refusal(f"{guest} is not ready.", "BUSY", "Wait until it is done.")
    wanted = Power.ON if on else Power.OFF
    with order(guest.template):
        if not guest.advance(GuestPhase.READY, f"Power {wanted}.", by, wanted_power=wanted):
            raise changed_meanwhile(guest)
        queue.soon("guest", guest.pk)


def due() -> Iterable[tuple[str, int]]:
    """The guests that wait for a worker, on providers that are there."""
    if not _ordered.pks():
        return
    waiting = GuestVM.objects.filter(_WORK, claim=None, provider__in=Provider.objects.available())
    rows = waiting.exclude(template__phase__in=BUSY).order_by("changed_at").values_list("pk", "provider")
    free = _places() if rows else {}
    for pk, provider in rows:
        if free[provider] > 0:
            free[provider] -= 1
            yield "guest", pk


@standing
def _ordered() -> QuerySet[GuestVM]:
    return GuestVM.objects.filter(_WORK, claim=None)


def _places() -> defaultdict[int, int]:
    """By provider: how many more guests may be worked on there at once."""
    free = defaultdict[int, int](lambda: AT_ONCE_PER_PROVIDER)
    busy = GuestVM.objects.filter(claim__isnull=False).order_by().values_list("provider")
    free.update({pk: AT_ONCE_PER_PROVIDER - count for pk, count in busy.annotate(count=Count("pk"))})
    return free


def expired() -> list[GuestVM]:
    """Failed creations whose time for inspection is over."""
    end = timezone.now() - FAILED_KEPT
    return [guest for guest in _failed() if guest.failed_at and guest.failed_at < end]


@standing
def _failed() -> QuerySet[GuestVM]:
    failed = GuestVM.objects.filter(phase=GuestPhase.CREATE_FAILED, claim=None)
    return failed.exclude(template__phase__in=BUSY).select_related("template", "provider")


def work(pk: int) -> None:
    """Carry out what is ordered of one guest."""
    guest = (
        GuestVM.objects.select_related("template", "provider", "version", "wanted_version")
        .filter(pk=pk)
        .first()
    )
    if guest is None or not guest.provider.available or not _take(guest):
        return
    carry_out = {
        GuestPhase.CREATING: _create,
        GuestPhase.PREPARING: _create,
        GuestPhase.RECREATING: _recreate,
        GuestPhase.DELETING: _delete,
        GuestPhase.READY: _switch,
    }[GuestPhase(guest.phase)]
    try:
        carry_out(guest)
    except Stopped:
        log.info("%s: something else was ordered, or the claim was lost; stopped", guest)
    except Unreachable as fault:
        _settle(guest, guest.phase, **error(fault.code, fault.text, fault.action))
    except DriverError as fault:
        _fail(guest, fault)
    _let_go(guest)


def holds(template: Template, provider: Provider, version: TemplateVersion) -> bool:
    """Whether the images of ``version`` are published on ``provider`` and not known to be lost or changed."""
    return template.targets.filter(
        provider=provider, desired=Desired.PRESENT, images__version=version, images__spoilt=False
    ).exists()


def image_refs(template: Template, provider: Provider, version: TemplateVersion) -> tuple[str, ...]:
    """The host's ids of the version's published disks, in disk order."""
    target = template.targets.get(provider=provider)
    return tuple(target.held(version).values_list("ref", flat=True))


def observe(provider: Provider, inventory: Inventory) -> None:
    """Compare the guests with what a good check read: those that are gone are Lost, those that are back Ready."""
    there = {(guest["name"], guest["mark"]["owner"]): guest for guest in inventory.guests if guest["mark"]}
    known = provider.guests.filter(
        older_than(inventory.read_at), claim=None, phase__in=[GuestPhase.READY, GuestPhase.LOST]
    )
    news: dict[int, Any] = {}
    for pk, name, phase, power in known.values_list("pk", "name", "phase", "power"):
        found = there.get((name, str(pk)))
        if (found is None) == (phase == GuestPhase.READY) or (found and found["power"] != power):
            news[pk] = found
    for guest in known.filter(pk__in=news).select_related("template", "provider") if news else ():
        found = news[guest.pk]
        if found is None and guest.phase == GuestPhase.READY:
            gone = error(
                "GUEST_LOST",
                f"{provider} has no guest VM of this name any more.",
                "Recreate it, or delete it here.",
            )
            guest.advance(GuestPhase.LOST, wanted_power="", **gone)
        elif found:
            guest.advance(GuestPhase.READY, power=found["power"], **no_error())


def _free_names(provider: Provider, prefix: str, count: int) -> Sequence[str]:
    taken = set(GuestVM.objects.filter(name__startswith=f"{prefix}-").values_list("name", flat=True))
    numbers = (f"{prefix}-{number:03d}" for number in range(1, len(taken) + count + 1))
    return [name for name in numbers if name not in taken][:count]


def _new(template: Template, provider: Provider, version: TemplateVersion, name: str, by: str) -> GuestVM:
    guest = GuestVM(template=template, provider=provider, version=version, name=name)
    guest.full_clean()
    guest.save()
    Event.record(guest, "", guest.phase, by=by)
    guest.announce()
    queue.soon("guest", guest.pk)
    return guest


def _take(guest: GuestVM) -> bool:
    """Claim it, unless its template is in maintenance by now, as far as its provider and the workers have places.

    The last workers are for other work.
    """
    if not GuestVM.objects.filter(_WORK, pk=guest.pk).exists():
        return False
    most = max(1, settings.WORKERS - SPARE_WORKERS)
    with transaction.atomic():
        template = locked(Template.objects.filter(pk=guest.template_id)).first()
        if template is None or template.in_maintenance:
            return False
        locked(Provider.objects.all()).get(pk=guest.provider_id)
        every = GuestVM.objects.filter(claim__isnull=False).count()
        if every >= most or _places()[guest.provider_id] <= 0:
            return False
        return guest.take(GuestPhase.PREPARING if guest.phase == GuestPhase.CREATING else guest.phase)


def _create(guest: GuestVM) -> None:
    spec = _spec_of_held(guest, guest.version)
    vm: VM = ask(guest, guest.provider, "clone", timeout=CLONE_SECONDS, spec=spec)
    _settle(guest, GuestPhase.READY, ref=vm.ref, power=vm.power, **no_error())


def _recreate(guest: GuestVM) -> None:
    wanted = guest.wanted_version or guest.version
    spec = _spec_of_held(guest, wanted)
    vm: VM = ask(guest, guest.provider, "recreate", timeout=CLONE_SECONDS, spec=spec)
    made = {"ref": vm.ref, "power": vm.power, "version": wanted, "wanted_version": None}
    _settle(guest, GuestPhase.READY, **made, **no_error())


def _delete(guest: GuestVM) -> None:
    try:
        ask(guest, guest.provider, "delete_guest", timeout=CALL_SECONDS, name=guest.name, mark=guest.mark)
    except Refused as refused:
        if refused.code != "NOT_OURS":  # what has its name there now is somebody else's; ours is gone
            raise
    store(partial(_drop, guest), guest)


def _drop(guest: GuestVM) -> None:
    if guest.report():
        Event.record(guest, guest.phase, "deleted", by=guest.owner)
        guest.announce()
        guest.delete()


def _switch(guest: GuestVM) -> None:
    wanted = guest.wanted_power
    on = wanted == Power.ON
    ask(guest, guest.provider, "power", timeout=CALL_SECONDS, name=guest.name, mark=guest.mark, on=on)
    ordered_meanwhile = Case(When(wanted_power=wanted, then=Value("")), default=F("wanted_power"))
    _settle(guest, guest.phase, power=wanted, wanted_power=ordered_meanwhile, **no_error())
    if guest.wanted_power:
        queue.soon("guest", guest.pk)


def _settle(guest: GuestVM, to: str, **fields: Any) -> None:
    """Store what came of it, also when the database is busy just then: done once more it would cost new disks."""
    store(lambda: guest.release(to, **fields), guest)


def _let_go(guest: GuestVM) -> None:
    """Nobody works for this claim any more: what was ordered meanwhile is begun at once."""
    held = GuestVM.objects.select_related("template", "provider")
    left = held.filter(pk=guest.pk, claim=guest.claim).exclude(claim=None).first()
    note = "Given back for what was ordered meanwhile."
    if left is not None and store(lambda: left.release(left.phase, note), left):
        queue.soon("guest", left.pk)


def _fail(guest: GuestVM, fault: DriverError) -> None:
    """A failed guest is kept for inspection; what was ordered before and worked stays as it was."""
    to = {
        GuestPhase.CREATING: GuestPhase.CREATE_FAILED,
        GuestPhase.PREPARING: GuestPhase.CREATE_FAILED,
        GuestPhase.RECREATING: GuestPhase.RECREATE_FAILED,
        GuestPhase.DELETING: _before_deletion(guest),
    }.get(GuestPhase(guest.phase), GuestPhase.READY)
    cause = error(fault.code, fault.text, fault.action)
    _settle(guest, to, failed_at=timezone.now(), wanted_power="", **cause)


def _before_deletion(guest: GuestVM) -> GuestPhase:
    if not guest.ref:
        return GuestPhase.CREATE_FAILED
    return GuestPhase.RECREATE_FAILED if guest.wanted_version_id else GuestPhase.READY


def _spec_of_held(guest: GuestVM, version: TemplateVersion) -> CloneSpec:
    """Guests are made from proven images only."""
    if not holds(guest.template, guest.provider, version):
        text = f"The image of version {version.number} on {guest.provider} is missing or was changed."
        raise Refused(text, code="NOT_INSTALLED", action="Retry the distribution to this provider first.")
    return CloneSpec(
        name=guest.name,
        images=image_refs(guest.template, guest.provider, version),
        formats=tuple(disk.format for disk in version.disk_versions),
        linked=guest.template.linked,
        definition=version.portable,
        mark=guest.mark,
    )
