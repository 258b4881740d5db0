"""What needs a person, first; and the search over everything."""

from __future__ import annotations

from django.db.models import Q, Sum
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render

from providers_app.models import Provider
from providers_app.parts import reach_sign
from rasweb.listing import PER_PAGE, head, query
from templates_app import activity, guests, pages
from templates_app.models import DistributionTarget, GuestVM, Template
from templates_app.states import COPYING_PHASES, RunPhase

FOUND = SHOWN = 20


def overview(request: HttpRequest) -> HttpResponse:
    signs = [pages.event_sign("activity"), reach_sign()]
    templates = pages.loaded(Template.objects.all())
    copying = DistributionTarget.objects.filter(phase__in=COPYING_PHASES)
    context = {
        "signs": signs,
        "failed": head(activity.failed_targets(), SHOWN),
        "broken": [each for each in templates if each.error_text],
        "silent": [each for each in Provider.objects.filter(enabled=True) if not each.available],
        "asked": _asked(templates),
        "spoilt": head(pages.guests_of(phase__in=guests.FAILED), SHOWN),
        "providers": Provider.objects.all()[:PER_PAGE],
        "running": activity.running_count(),
        "rate": copying.aggregate(sum=Sum("rate"))["sum"] or 0,
        "templates": len(templates),
        "guests": GuestVM.objects.count(),
        "space": Provider.objects.aggregate(free=Sum("free_bytes"), total=Sum("total_bytes")),
    }
    context["first"] = not (templates and context["providers"] and context["guests"])
    return render(request, "templates_app/overview.html", context)


def search(request: HttpRequest) -> HttpResponse:
    """Templates, providers and guest VMs whose name holds the text."""
    text = query(request)
    context = {
        "text": text,
        "templates": Template.objects.filter(Q(name__icontains=text) | Q(source_vm__icontains=text))[:FOUND]
        if text
        else [],
        "providers": Provider.objects.filter(name__icontains=text)[:FOUND] if text else [],
        "guests": pages.guests_of(name__icontains=text)[:FOUND] if text else [],
    }
    return render(request, "templates_app/search.html", context)


def _asked(templates: list[Template]) -> list[Template]:
    """Templates with outdated guests about which nobody has decided, or whose recreation is held up."""
    stale = [each for each in templates if each.outdated_count]
    return [each for each in stale if each.live_run is None or each.live_run.phase != RunPhase.RUNNING]
