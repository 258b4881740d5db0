"""Parts of pages about providers; the same for rows, answers and live updates."""

from __future__ import annotations

from collections.abc import Collection

from django.template.loader import render_to_string

from providers_app.models import Provider
from providers_app.status import word
from rasweb.listing import Sign, facts_sign

WATCHED = ("enabled", "reachability", "last_seen_at", "free_bytes", "error_text")
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
    return order_signs()["state"]


def order_signs() -> dict[str, Sign]:
    """By what a list of providers is filtered and sorted by, and checks change: what tells that it is another list."""
    rows = list(Provider.objects.order_by("pk").only(*WATCHED))
    by_seen = sorted(rows, key=lambda row: row.last_seen_at.timestamp() if row.last_seen_at else 0)
    by_space = sorted(rows, key=lambda row: row.free_bytes)
    facts: dict[str, tuple[str, list[object]]] = {
        "state": ("reach", [(row.pk, word(row), row.error_text) for row in rows]),
        "seen": ("seen", [row.pk for row in by_seen]),
        "space": ("space", [row.pk for row in by_space]),
    }
    return {name: facts_sign(key, seen, "providers") for name, (key, seen) in facts.items()}
