"""Checks before any byte moves: the same code for the Properties dialog and for the copy itself."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from django.utils.translation import gettext as _

from providers_app.drivers import load
from providers_app.drivers.base import Can, Misfit
from providers_app.models import Inventory, Provider
from rasweb.quantities import size
from templates_app.models import DistributionTarget, Template, TemplateVersion
from templates_app.states import COPYING_PHASES, Phase

RESERVE_SHARE = 0.02
RESERVE_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True)
class Finding:
    """One check of one provider. ``text`` says what was found, ``action`` what to do where it is not ok."""

    check: str
    ok: bool
    code: str = ""
    text: str = ""
    action: str = ""


def findings(template: Template, version: TemplateVersion | None, provider: Provider) -> list[Finding]:
    """Check a provider, as last surveyed, against what the template needs there."""
    return [
        _reachable(provider),
        _same_kind(template, provider),
        _hardware(template, version, provider),
        _clones(template, provider),
        _network(version, provider),
        _space(template, version, provider),
    ]


def first_obstacle(found: Iterable[Finding]) -> Finding | None:
    return next((finding for finding in found if not finding.ok), None)


def _reachable(provider: Provider) -> Finding:
    if provider.available:
        return Finding(_("Location"), True, text=_("The location for images is there."))
    text = provider.error_text or _("%(provider)s is not available.") % {"provider": provider}
    return Finding(
        _("Location"), False, "NOT_AVAILABLE", text, _("Check the provider; the copy waits for it.")
    )


def _same_kind(template: Template, provider: Provider) -> Finding:
    kind = template.source_provider.kind
    if provider.kind == kind or {provider.kind, kind} <= {"directory", "simulator"}:
        return Finding(_("Same kind"), True, text=_("Images of %(kind)s fit.") % {"kind": kind})
    text = _("%(provider)s is of kind %(other)s, the template of kind %(kind)s.")
    return Finding(
        _("Same kind"),
        False,
        "PREREQUISITE",
        text % {"provider": provider, "other": provider.kind, "kind": kind},
        _("Choose a provider of the same kind."),
    )


def _hardware(template: Template, version: TemplateVersion | None, provider: Provider) -> Finding:
    """By what the host said it offers; one that has not said it yet is not held back."""
    lacking: Sequence[Misfit] = ()
    if version is not None and template.source_provider.kind == provider.kind:
        offers = Inventory.objects.filter(provider=provider).values_list("hardware", flat=True)
        lacking = load(provider.kind).misfits(offers.first() or "", version.portable, provider.name)
    if not lacking:
        return Finding(_("Virtual hardware"), True, text=_("What the VM is made of is there."))
    text = " ".join(each.text for each in lacking)
    actions = dict.fromkeys(each.action for each in lacking)
    return Finding(_("Virtual hardware"), False, "PREREQUISITE", text, " ".join(actions))


def _clones(template: Template, provider: Provider) -> Finding:
    if not template.linked or Can.LINKED_CLONE in provider.capabilities:
        return Finding(_("Clone method"), True, text=_("Guest VMs can be made the chosen way."))
    text = _("%(provider)s can not make linked clones.") % {"provider": provider}
    return Finding(
        _("Clone method"),
        False,
        "PREREQUISITE",
        text,
        _("Install qemu-img for it, or choose another provider."),
    )


def _network(version: TemplateVersion | None, provider: Provider) -> Finding:
    wanted = version.portable.network if version else ""
    if not wanted or provider.networks is None or wanted in provider.networks:
        return Finding(_("Network"), True, text=_("The network is there."))
    text = _("%(provider)s has no network “%(network)s”.") % {"provider": provider, "network": wanted}
    return Finding(_("Network"), False, "NETWORK_MISSING", text, _("Create the network there, then retry."))


def _space(template: Template, version: TemplateVersion | None, provider: Provider) -> Finding:
    needed, held = needed_bytes(template, version, provider), reserved_bytes(template, provider)
    free = provider.free_bytes - held - _reserve(provider)
    if needed <= max(0, free):
        text = _("Needs %(needed)s, %(free)s free.") % {"needed": size(needed), "free": size(max(0, free))}
        return Finding(_("Free space"), True, text=text)
    text = _("%(provider)s is too full: needs %(needed)s, %(free)s free.")
    return Finding(
        _("Free space"),
        False,
        "NO_SPACE",
        text % {"provider": provider, "needed": size(needed), "free": size(max(0, free))},
        _("Free some space there, then retry."),
    )


def needed_bytes(template: Template, version: TemplateVersion | None, provider: Provider) -> int:
    """Bytes that a copy will still take there; what earlier tries left counts as taken already."""
    target = template.targets.filter(provider=provider).first()
    if version is None or (target and target.held(version).exists()):
        return 0
    return max(0, version.allocated - (target.bytes_peak if target else 0))


def reserved_bytes(template: Template, provider: Provider) -> int:
    """Bytes that copies of other templates, running now, will still take there."""
    running = DistributionTarget.objects.filter(provider=provider, phase__in=COPYING_PHASES).exclude(
        template=template
    )
    own = template.targets.filter(provider=provider, phase=Phase.CHECKING).first()
    if own and own.started_at:  # of two that look at the same time the first one takes the room
        running = running.exclude(phase=Phase.CHECKING, started_at__gt=own.started_at)
    return sum(max(0, total - done) for total, done in running.values_list("bytes_total", "bytes_done"))


def _reserve(provider: Provider) -> int:
    return min(RESERVE_BYTES, int(provider.total_bytes * RESERVE_SHARE))
