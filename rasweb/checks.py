"""System checks: what is wrong with this installation, said before it starts."""

from __future__ import annotations

import difflib
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, register
from django.core.checks import Warning as Caution

from rasweb import relay

TAG = "rasweb"
_REDIS_SECONDS = 0.5


@register(TAG)
def folders(**_: Any) -> list[CheckMessage]:
    """The data folder takes files; below each allowed root hosts can lie."""
    found: list[CheckMessage] = []
    if not os.access(settings.DATA_DIR, os.W_OK | os.X_OK):
        found.append(Error(f"The data folder {settings.DATA_DIR} is not writable.", id="rasweb.E001"))
    for root in settings.ALLOWED_ROOTS:
        path = Path(root)
        if path.is_dir():
            continue
        if path.exists():
            found.append(
                Error(
                    f"The allowed root {root} is not a folder.",
                    hint="Name folders in RASWEB_ALLOWED_ROOTS.",
                    id="rasweb.E002",
                )
            )
        elif not os.access(_nearest(path), os.W_OK):
            found.append(
                Caution(
                    f"The allowed root {root} does not exist and can not be made.",
                    hint="Make or mount it, or correct RASWEB_ALLOWED_ROOTS.",
                    id="rasweb.W002",
                )
            )
    return found


@register(TAG)
def keys(**_: Any) -> list[CheckMessage]:
    """Kept keys are for their owner only."""
    return [
        Caution(f"{path} can be read by others.", hint=f"chmod 600 {path}", id="rasweb.W003")
        for path in (settings.DATA_DIR / "secret_key", settings.DATA_DIR / "field_keys")
        if path.exists() and stat.S_IMODE(path.stat().st_mode) & 0o077
    ]


@register(TAG)
def channel_layer(**_: Any) -> list[CheckMessage]:
    """Live updates have a way from the workers to the web process. Without it pages poll."""
    fault, hint = (
        (_redis_fault(settings.REDIS_URL), "Check RASWEB_REDIS_URL.")
        if settings.REDIS_URL
        else (_relay_fault(), "Set a shorter RASWEB_DATA_DIR.")
    )
    return [Caution(f"Live updates do not arrive: {fault}", hint=hint, id="rasweb.W004")] if fault else []


@register(TAG)
def queue(**_: Any) -> list[CheckMessage]:
    """Messages and rows commit together, no message comes twice, and no row can name what is run."""
    wrong = {
        "is not kept in the default database": settings.Q_CLUSTER["orm"] != "default",
        "repeats tasks that still run": settings.Q_CLUSTER["retry"] <= settings.Q_CLUSTER["timeout"],
        "runs schedules": settings.Q_CLUSTER["scheduler"],
    }
    return [Error(f"The queue {what}.", id="rasweb.E005") for what, so in wrong.items() if so]


@register(TAG)
def names(**_: Any) -> Iterator[CheckMessage]:
    """A misspelt setting would be silently without effect."""
    known = settings.SETTING_NAMES
    for name in sorted(os.environ):
        if name.startswith("RASWEB_") and name.removesuffix("_FILE") not in known:
            near = difflib.get_close_matches(name, known, 1)
            hint = f"Did you mean {near[0]}?" if near else "docs/settings.md lists the settings."
            yield Caution(f"{name} is not a setting of rasweb.", hint=hint, id="rasweb.W006")


def _redis_fault(url: str) -> str:
    import redis

    limits = {"socket_connect_timeout": _REDIS_SECONDS, "socket_timeout": _REDIS_SECONDS}
    try:
        redis.Redis.from_url(url, **limits).ping()
    except redis.RedisError as error:
        return str(error)
    return ""


def _relay_fault() -> str:
    try:
        relay.address(str(settings.DATA_DIR))
    except OSError as error:
        return str(error)
    return ""


def _nearest(path: Path) -> Path:
    """The nearest folder above that exists."""
    return next(parent for parent in path.parents if parent.exists())
