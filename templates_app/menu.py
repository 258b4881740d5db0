"""What may be done with the chosen templates. What does not apply is disabled with its reason, never hidden."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import urlencode

from django.urls import reverse
from django.utils.translation import gettext as _

from rasweb import access
from rasweb.menus import Item
from templates_app.models import GuestVM, Template
from templates_app.states import GuestPhase, TemplatePhase


def of_templates(chosen: Sequence[Template], role: str | None) -> list[Item]:
    """The menu of one template, or of a selection."""
    one = chosen[0] if len(chosen) == 1 else None
    pick = "" if chosen else _("Select a template first")
    single = pick or ("" if one else _("Select one template"))
    may = access.needs(role, access.OPERATOR)
    args = [one.pk] if one else [0]
    return [
        Item(_("Properties"), "adjustments-horizontal", reverse("template-properties", args=args), single),
        Item(
            _("Distribution details"),
            "progress-check",
            reverse("template-distribution", args=args),
            single,
            gap=True,
        ),
        _maintenance(chosen, may or pick),
        _recreate(chosen, may or pick),
        Item(
            _("Retry distribution"),
            "reload",
            _many("templates-retry", chosen),
            may or pick or _no_failure(chosen),
            verb="post",
        ),
        Item(
            _("Create guest VMs"),
            "device-desktop",
            reverse("guest-new", args=args),
            may or single or _suspended(one),
        ),
        Item(
            _("Delete"),
            "trash",
            reverse("template-delete", args=args),
            may or single or _suspended(one),
            True,
            True,
        ),
    ]


def of_guests(chosen: Sequence[GuestVM], role: str | None) -> list[Item]:
    """The menu of one guest VM, or of a selection."""
    may = access.needs(role, access.OPERATOR)
    no = may or ("" if chosen else _("Select a guest VM first")) or _any_suspended(chosen)
    switch = no or _no_power(chosen)
    on = switch or ("" if any(guest.power != "on" for guest in chosen) else _("Is running"))
    off = switch or ("" if any(guest.power != "off" for guest in chosen) else _("Is off"))
    return [
        Item(_("Start"), "player-play", _verb("start", chosen), on, verb="post"),
        Item(_("Stop"), "player-stop", _verb("stop", chosen), off),
        Item(_("Recreate"), "refresh", _verb("recreate", chosen), no or _busy(chosen), gap=True),
        Item(_("Delete"), "trash", _verb("delete", chosen), no, True, True),
    ]


def _maintenance(chosen: Sequence[Template], no: str) -> Item:
    if len(chosen) == 1 and chosen[0].phase == TemplatePhase.MAINTENANCE:
        return Item(_("Leave maintenance"), "tool", reverse("template-leave", args=[chosen[0].pk]), no)
    no = no or next((_not_ready(each) for each in chosen if each.phase != TemplatePhase.READY), "")
    return Item(_("Maintenance"), "tool", _many("templates-maintenance", chosen), no)


def _recreate(chosen: Sequence[Template], no: str) -> Item:
    no = no or next((_suspended(each) for each in chosen if each.in_maintenance), "")
    stale = any(each.outdated_count for each in chosen)
    no = no or ("" if stale else _("No guest VM is outdated"))
    if len(chosen) == 1:
        return Item(_("Recreate guest VMs"), "refresh", reverse("template-recreate", args=[chosen[0].pk]), no)
    return Item(_("Recreate guest VMs"), "refresh", _many("templates-recreate", chosen), no)


def _not_ready(template: Template) -> str:
    return _("%(name)s: %(status)s") % {"name": template, "status": template.get_phase_display()}


def _suspended(template: Template | None) -> str:
    return _("In maintenance") if template and template.in_maintenance else ""


def _no_failure(chosen: Sequence[Template]) -> str:
    failed = any(each.distribution.failed for each in chosen)
    return next((_suspended(each) for each in chosen if each.in_maintenance), "") or (
        "" if failed else _("Nothing failed")
    )


def _any_suspended(chosen: Sequence[GuestVM]) -> str:
    return next((_suspended(guest.template) for guest in chosen if guest.template.in_maintenance), "")


def _no_power(chosen: Sequence[GuestVM]) -> str:
    lacking = next(
        (guest.provider.name for guest in chosen if "power" not in guest.provider.capabilities), ""
    )
    if lacking:
        return _("%s has no power switch") % lacking
    return _busy(chosen)


def _busy(chosen: Sequence[GuestVM]) -> str:
    still = (GuestPhase.READY, GuestPhase.CREATE_FAILED, GuestPhase.RECREATE_FAILED, GuestPhase.LOST)
    busy = next((guest for guest in chosen if guest.phase not in still), None)
    return str(busy.get_phase_display()) if busy else ""


def _many(name: str, chosen: Sequence[Template]) -> str:
    return f"{reverse(name)}?{urlencode([('pk', each.pk) for each in chosen])}"


def _verb(verb: str, chosen: Sequence[GuestVM]) -> str:
    return f"{reverse('guests-selected', args=[verb])}?{urlencode([('pk', each.pk) for each in chosen])}"
