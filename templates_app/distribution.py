"""What administrators order of a template: add and remove providers, retry, cancel, delete.

Orders change what is desired and return at once; workers carry them out. Each verb refuses with a sentence, writes
only rows that are still as they were read, and records who ordered it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from django.db import transaction
from django.db.models import Q, QuerySet

from providers_app import connections, health
from providers_app.drivers.base import Mark
from providers_app.models import Inventory, Provider
from rasweb.refusals import Refusal
from templates_app import queue, recreation, removal
from templates_app.gate import changed_meanwhile, order
from templates_app.models import DistributionTarget, Event, GuestVM, Template, TemplateVersion
from templates_app.models.work import no_error
from templates_app.states import COPYING_PHASES, Desired, Intent, Phase, TemplatePhase

FRESH = {"attempt": 0, "next_try_at": None, "cancel": False, "bytes_peak": 0, "rate": 0}
UNCLAIMED = {"claim": None, "owner": ""}


def add_providers(template: Template, providers: Iterable[Provider], by: str) -> None:
    """Add providers to the distribution list. One that is being removed is kept instead."""
    with order(template) as fresh:
        if fresh.phase == TemplatePhase.DELETING:
            raise Refusal(f"{fresh} is being deleted.", "DELETING", "Create a new template.")
        if not fresh.multi_provider:
            raise Refusal(
                f"{fresh} is not distributed to several providers.",
                "NOT_MULTI_PROVIDER",
                "Create a new template.",
            )
        for provider in providers:
            target = fresh.targets.select_related("provider").filter(provider=provider).first()
            if target is None:
                new_target(fresh, provider, Intent.ADDING, by)
            elif target.desired == Desired.ABSENT:
                _keep(target, by)
        queue.soon("distribute", fresh.pk)


def remove_providers(
    template: Template, providers: Iterable[Provider], by: str, *, delete_guests: bool = False
) -> None:
    """Remove providers from the distribution list; a running copy is cancelled first.

    Refused while guests live there, unless they are to be deleted too. The source provider stays.
    """
    with order(template) as fresh:
        targets = list(fresh.targets.select_related("provider").filter(provider__in=list(providers)))
        for target in targets:
            _check_removable(fresh, target, delete_guests)
        for target in targets:
            _want_absent(target, by, delete_guests=delete_guests)


def apply(
    template: Template,
    providers: Collection[Provider],
    max_concurrent: int,
    by: str,
    *,
    delete_guests: bool = False,
    was: Collection[int] | None = None,
) -> None:
    """Make the distribution list be exactly ``providers`` and the source: the Properties dialog.

    ``was``: the keys of the list that the order was made from; refused when it is another one by now.
    """
    with order(template) as fresh:
        wanted = {provider.pk for provider in providers} | {fresh.source_provider_id}
        present = set(fresh.targets.filter(desired=Desired.PRESENT).values_list("provider_id", flat=True))
        if was is not None and set(was) != present:
            raise changed_meanwhile(f"The distribution list of {fresh}")
        gone = Provider.objects.filter(pk__in=present - wanted)
        added = [provider for provider in providers if provider.pk in wanted - present]
        if max_concurrent != fresh.max_concurrent:
            set_concurrent(fresh, max_concurrent, by)
        if gone:
            remove_providers(fresh, gone, by, delete_guests=delete_guests)
        if added:
            add_providers(fresh, added, by)


def set_concurrent(template: Template, number: int, by: str) -> None:
    """Change the number of providers for concurrent distribution; work that runs goes on."""
    if not 1 <= number <= 1000:
        raise Refusal("The number of providers for concurrent distribution is from 1 to 1000.", "BAD_INPUT")
    with order(template) as fresh:
        if not fresh.advance(fresh.phase, f"Concurrent copies: {number}.", by, max_concurrent=number):
            raise changed_meanwhile(fresh)


def retry(target: DistributionTarget, by: str) -> None:
    """Order the work of a failed target again. What is on the host already is verified, not sent again.

    An image that may have been changed is compared first; one that differs gets a new one beside it.
    """
    health.require(target.provider)
    with order(target.template):
        if target.phase != Phase.FAILED:
            raise Refusal(f"Nothing failed on {target.provider}.", "NOT_FAILED")
        present = target.desired == Desired.PRESENT
        kept = {"bytes_peak": target.bytes_peak}  # it takes room there, and needs no more
        if not target.advance(Phase.WAITING, "Retry.", by, **{**FRESH, **kept}, **no_error()):
            raise changed_meanwhile(target)
        queue.soon("distribute" if present else "remove", target.template_id if present else target.pk)


def retry_failed(template: Template, by: str) -> int:
    """Retry every failed target whose provider is available; return how many."""
    failed = template.targets.select_related("provider", "template").filter(phase=Phase.FAILED)
    with order(template):
        able = [target for target in failed if target.provider.available]
        for target in able:
            retry(target, by)
    return len(able)


def force_removal(target: DistributionTarget, by: str) -> None:
    """Delete an image although it was changed by hand: the answer to a removal that failed with CONTENT_CHANGED."""
    if (
        target.desired != Desired.ABSENT
        or target.phase != Phase.FAILED
        or target.error_code != "CONTENT_CHANGED"
    ):
        raise Refusal(f"No removal on {target.provider} waits for this decision.", "NOT_FAILED")
    with order(target.template):
        note = "Remove although it was changed by hand."
        if not target.advance(Phase.WAITING, note, by, force=True, **FRESH, **no_error()):
            raise changed_meanwhile(target)
        queue.soon("remove", target.pk)


def cancel(target: DistributionTarget, by: str) -> None:
    """Stop the work on a target. What was copied is deleted first; a provider that was being added is removed again."""
    if target.phase not in COPYING_PHASES | {Phase.WAITING} or target.desired == Desired.ABSENT:
        raise Refusal(f"Nothing runs on {target.provider}.", "NOT_RUNNING")
    with order(target.template):
        if target.intent == Intent.ADDING and target.installed_version_id is None:
            _want_absent(target, by)
        elif target.phase == Phase.WAITING:
            if not target.advance(Phase.WAITING, "Cancel.", by, cancel=True):
                raise changed_meanwhile(target)
        else:
            _tell_worker(target, "Cancel.", by, cancel=True)
        queue.soon("remove", target.pk)


def delete(template: Template, by: str) -> None:
    """Delete a template: its images go from every provider, then the template. Refused while guests exist.

    A worker that still creates it sees the order at its next report, and lets go; its removal waits for that.
    """
    with order(template) as fresh:
        guests = list(fresh.guests.values_list("name", flat=True)[:6])
        if guests:
            names = ", ".join(guests[:5]) + (" …" if len(guests) > 5 else "")
            raise Refusal(f"Guest VMs of {fresh} exist: {names}.", "GUESTS", "Delete them first.")
        if fresh.phase != TemplatePhase.DELETING and not fresh.advance(TemplatePhase.DELETING, by=by):
            raise changed_meanwhile(fresh)
        for target in fresh.targets.select_related("provider"):
            _want_absent(target, by)


def make_current(version: TemplateVersion, by: str) -> None:
    """Make an older version the current one: it is distributed, and guests of other versions are outdated.

    A recreation towards another version ends.
    """
    with order(version.template) as template:
        if template.current_version_id == version.pk:
            raise Refusal(f"Version {version.number} is the current one.", "CURRENT")
        held = version.published.filter(target__template=template, spoilt=False)
        held = held.exclude(target__desired=Desired.ABSENT)
        if version.retired_at or not held.exists():
            raise Refusal(f"No provider holds version {version.number} any more.", "RETIRED")
        note = f"Version {version.number} is current."
        if not template.advance(template.phase, note, by, current_version=version):
            raise changed_meanwhile(template)
        want_version(template, version, by)
        recreation.overtake(template, version, by)
        queue.soon("distribute", template.pk)


def want_version(template: Template, version: TemplateVersion, by: str) -> None:
    """Point every present target at ``version``; those that hold another one begin to copy."""
    present = template.targets.select_related("provider").filter(desired=Desired.PRESENT)
    for target in present:
        seen: DistributionTarget | None = target
        while seen and not want(seen, version, by):
            seen = present.filter(pk=target.pk).first()  # a worker moved it meanwhile


def want(target: DistributionTarget, version: TemplateVersion, by: str) -> bool:
    """Point a present target at ``version``, if it is still as this object saw it; say whether it was."""
    done = target.installed_version_id == version.pk and target.phase == Phase.INSTALLED
    if done or target.cancel or target.phase in COPYING_PHASES or _cancelled_before(target):
        return bool(target.as_seen().update(wanted_version=version))
    fields = {
        "wanted_version": version,
        "intent": target.intent if target.installed_version_id is None else Intent.DISTRIBUTING,
        "bytes_done": 0,
        "bytes_total": version.allocated,
    }
    note = f"Version {version.number}."
    return target.advance(Phase.WAITING, note, by, **fields, **UNCLAIMED, **FRESH, **no_error())


def _cancelled_before(target: DistributionTarget) -> bool:
    """Whether it was cancelled while there was no version yet to copy."""
    return target.error_code == "CANCELLED" and target.wanted_version_id is None


def forget(provider: Provider, by: str) -> list[str]:
    """Drop a provider and all that is known of it, leaving its files alone; return what stays behind there.

    Templates that are being deleted and wait for nobody else go with it.
    """
    needed = list(sourced(provider).values_list("name", flat=True)[:5])
    if needed:
        raise Refusal(
            f"{provider} is the source of {', '.join(needed)}.", "SOURCE", "Delete these templates first."
        )
    with transaction.atomic():
        left = _write_down_what_stays(provider, by)
        GuestVM.objects.filter(provider=provider).delete()
        DistributionTarget.objects.filter(provider=provider).delete()
        for template in provider.source_templates.all():
            removal.drop_deleted(template)
        connections.delete(provider)
    return left


def _write_down_what_stays(provider: Provider, by: str) -> list[str]:
    """The history is all that is left of a forgotten provider, so it names what lies there; return all of it."""
    inventory = Inventory.objects.filter(provider=provider).first()
    staged = [image for image in (inventory.staged if inventory else []) if image.get("mark")]
    left = {str(image["ref"]) for image in staged}
    for target in DistributionTarget.objects.filter(provider=provider).select_related("template", "provider"):
        mine = target.template.mark()
        refs = [*target.images.values_list("ref", flat=True)]
        refs += [image["ref"] for image in staged if mine.owns(Mark(**image["mark"]))]
        left |= _write_down(target, refs, by)
    for guest in GuestVM.objects.filter(provider=provider).select_related("template", "provider"):
        left |= _write_down(guest, [guest.ref or guest.name], by)
    return sorted(left)


def _write_down(row: DistributionTarget | GuestVM, refs: list[str], by: str) -> set[str]:
    names = f": {', '.join(sorted(refs))}" if refs else ""
    Event.record(row, row.phase, "forgotten", by=by, note=f"Its files stay on the host{names}.")
    return set(refs)


def sourced(provider: Provider) -> QuerySet[Template]:
    """The templates that need a provider as their source; one whose deletion is owed to it alone does not."""
    elsewhere = DistributionTarget.objects.exclude(provider=provider).values("template")
    owed = Q(phase=TemplatePhase.DELETING) & ~Q(pk__in=elsewhere)
    return provider.source_templates.exclude(owed)


def new_target(template: Template, provider: Provider, intent: str, by: str) -> None:
    """Write a provider into the distribution list."""
    version = template.current_version
    target = DistributionTarget.objects.create(
        template=template,
        provider=provider,
        intent=intent,
        wanted_version=version,
        bytes_total=version.allocated if version else 0,
    )
    Event.record(target, "", target.phase, by=by)
    target.announce()


def _keep(target: DistributionTarget, by: str) -> None:
    """A removal is taken back before it is done: what is there with the right digest is used again."""
    if target.at_work:
        raise Refusal(
            f"{target.provider} is being removed right now.",
            "CONFLICT",
            "Add it again when the removal is done.",
        )
    fields = {
        "desired": Desired.PRESENT,
        "intent": Intent.ADDING,
        "wanted_version": target.template.current_version,
    }
    if not target.advance(Phase.WAITING, "Added again.", by, **fields, **FRESH, **no_error()):
        raise changed_meanwhile(target)


def _check_removable(template: Template, target: DistributionTarget, delete_guests: bool) -> None:
    if target.provider_id == template.source_provider_id:
        raise Refusal(
            f"{target.provider} is the source of {template} and stays in its list.",
            "SOURCE",
            "Delete the template instead.",
        )
    guests = template.guests.filter(provider=target.provider).count()
    if guests and not delete_guests:
        raise Refusal(
            f"Guest VMs of {template} live on {target.provider}: {guests}.",
            "GUESTS",
            "Delete them first, or choose to delete the guest VMs too.",
        )


def _want_absent(target: DistributionTarget, by: str, *, delete_guests: bool = False) -> None:
    """Set what is desired; a worker that copies sees it at its next report, cancels and lets go."""
    if target.desired == Desired.ABSENT:
        return
    fields = {"desired": Desired.ABSENT, "delete_guests": delete_guests, "force": False}
    if target.phase in COPYING_PHASES:
        _tell_worker(target, "Remove; the running copy is cancelled first.", by, **fields)
    elif not target.advance(Phase.WAITING, "Remove.", by, **fields, **UNCLAIMED, **FRESH, **no_error()):
        raise changed_meanwhile(target)
    queue.soon("remove", target.pk)


def _tell_worker(target: DistributionTarget, note: str, by: str, **wish: object) -> None:
    """Leave a wish on a row that a worker holds; the worker reads it with its next report."""
    held = DistributionTarget.objects.filter(pk=target.pk, phase__in=COPYING_PHASES, claim=target.claim)
    if not held.update(**wish):
        raise changed_meanwhile(target)
    Event.record(target, target.phase, target.phase, by=by, note=note)
    target.announce()
