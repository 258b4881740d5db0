"""How providers look on pages."""

from __future__ import annotations

from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from providers_app.models import Provider
from providers_app.status import word
from rasweb.looks import Look

LOOKS = {
    "Ready": (_("Ready"), "success", "circle-check"),
    "Not available": (_("Not available"), "danger", "plug-x"),
    "Disabled": (_("Disabled"), "secondary", "ban"),
}


def reach(provider: Provider) -> Look:
    """Whether it may be given work. An unknown is not green: what was not checked lately is Not available."""
    label, tone, icon = LOOKS[word(provider)]
    return Look(str(label), tone, icon)


def reason(provider: Provider) -> str:
    """Why it is Not available, or what is wrong although it is ready, and what to do. Empty when all is well."""
    if not provider.enabled:
        return gettext("Switched off: no checks, no work.")
    if provider.error_text:
        return f"{provider.error_text} {provider.error_action or _to_do(provider)}".strip()
    if provider.last_checked_at is None:
        return gettext("It is being checked for the first time.")
    return gettext("It was not checked lately.") if provider.stale else ""


def _to_do(provider: Provider) -> str:
    """Where its driver knows nothing better."""
    if provider.available:
        return ""
    return gettext("See that the host is up and can be reached; it is asked again by itself.")


def used_percent(provider: Provider) -> int:
    """Of the space at its location."""
    return round(100 * (1 - provider.free_bytes / provider.total_bytes)) if provider.total_bytes else 0
