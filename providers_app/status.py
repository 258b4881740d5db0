"""A provider as plain data: for commands, and whatever else is not a page."""

from __future__ import annotations

from typing import Any

from providers_app.models import Provider


def provider_status(provider: Provider) -> dict[str, Any]:
    """Sizes in bytes, times in ISO 8601. ``state`` is the word of the pages."""
    error = {"code": provider.error_code, "text": provider.error_text, "action": provider.error_action}
    return {
        "name": provider.name,
        "kind": provider.kind,
        "state": word(provider),
        "enabled": provider.enabled,
        "last_seen": provider.last_seen_at.isoformat(timespec="seconds") if provider.last_seen_at else None,
        "free_bytes": provider.free_bytes,
        "total_bytes": provider.total_bytes,
        "capabilities": provider.capabilities,
        "networks": provider.networks,
        "bandwidth_limit": provider.bandwidth_limit,
        "max_copies": provider.max_copies,
        "error": error if provider.error_code else None,
    }


def word(provider: Provider) -> str:
    """Ready, Not available, or Disabled: an unknown is not green."""
    if not provider.enabled:
        return "Disabled"
    return "Ready" if provider.available else "Not available"
