"""Parts of pages about providers; the same for rows, answers and live updates."""

from __future__ import annotations

from collections.abc import Collection

from django.template.loader import render_to_string

from providers_app.models import Provider
from providers_app.status import word
from rasweb.listing import Sign, facts_sign

CELLS = ("state", "seen", "space", "notice")


def provider_parts(v: int, pks: Collection[int]) -> str:
    """All leaves of these providers; ``v`` is the moment before they are read."""
    rows = Provider.objects.filter(pk__in=pks) if pks else ()
    return "".join(
        render_to_string(f"providers_app/parts.html#provider-{cell}", {"v": v, "provider": row})
        for row in rows
        for cell in CELLS
    )


def reach_sign() -> Sign:
    """Changes when a provider is lost or back, and with the cause that pages name."""
    rows = Provider.objects.order_by("pk")
    return facts_sign("reach", ((row.pk, word(row), row.error_text) for row in rows), "providers")
