"""One provider with all that is there, and forgetting it."""

from __future__ import annotations

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, render
from django.utils.translation import gettext as _

from providers_app.models import Inventory, Provider
from rasweb.answers import dialog, go
from rasweb.listing import head, list_sign
from rasweb.refusals import Refusal
from templates_app import distribution, pages
from templates_app.views import who


def provider(request: HttpRequest, pk: int) -> HttpResponse:
    row = get_object_or_404(Provider, pk=pk)
    context = {
        "sign": pages.provider_sign(row),
        "events_sign": pages.provider_events_sign(pk),
        "target_sign": list_sign(f"provider-targets-{pk}", pages.targets_of(provider=row)),
        "guest_sign": list_sign(f"provider-guests-{pk}", pages.guests_of(provider=row)),
        "provider": row,
        "inventory": Inventory.objects.filter(provider=row).first(),
        "targets": pages.targets_of(provider=row),
        "guests": head(pages.guests_of(provider=row), pages.GUESTS_SHOWN),
        "events": head(pages.provider_events(pk), pages.EVENTS_SHOWN),
    }
    return render(request, "templates_app/provider.html", context)


def forget(request: HttpRequest, pk: int) -> HttpResponse:
    """Drop a provider with all that is known of it; what stays on the host is listed before and after."""
    provider = get_object_or_404(Provider, pk=pk)
    context = {
        "provider": provider,
        "targets": pages.targets_of(provider=provider),
        "guests": pages.guests_of(provider=provider),
        "sources": distribution.sourced(provider),
    }
    if request.method != "POST":
        return dialog(request, "templates_app/forget.html", **context)
    if request.POST.get("name") != provider.name:
        return dialog(request, "templates_app/forget.html", wrong=True, **context)
    try:
        left = distribution.forget(provider, who(request))
    except Refusal as refusal:
        return dialog(request, "templates_app/forget.html", refusal=refusal, **context)
    messages.success(
        request,
        _("%(provider)s was forgotten; %(n)d files stay there.") % {"provider": provider, "n": len(left)},
    )
    return go(request, "providers")
