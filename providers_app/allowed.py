"""What this installation allows its providers, whatever a provider's own settings say."""

from __future__ import annotations

from typing import Any

from django.conf import settings


def allowed() -> dict[str, Any]:
    """Return the settings that every driver gets beside its own."""
    return {
        "roots": list(settings.ALLOWED_ROOTS),
        "sockets": list(settings.ALLOWED_SOCKETS),
        "plain_tcp": settings.ALLOW_PLAIN_TCP,
    }
