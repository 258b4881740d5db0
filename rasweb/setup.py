"""The first administrator: a link, printed at the start, that works until there is one."""

from __future__ import annotations

from django.contrib.auth import get_user_model
from django.core import signing
from django.urls import NoReverseMatch, reverse

_SALT = "rasweb.setup"
_VALID_SECONDS = 24 * 60 * 60


def needed() -> bool:
    """Whether nobody could administer this installation yet."""
    return not get_user_model()._default_manager.filter(is_superuser=True, is_active=True).exists()


def token() -> str:
    return signing.dumps("first administrator", salt=_SALT)


def allowed(text: str) -> bool:
    """Whether ``text`` is a token of ours, not older than a day, and there is no administrator yet."""
    try:
        signing.loads(text, salt=_SALT, max_age=_VALID_SECONDS)
    except signing.BadSignature:
        return False
    return needed()


def link(base_url: str) -> str | None:
    """The one-time address for creating the first administrator; None if there is one."""
    if not needed():
        return None
    try:
        path = reverse("setup", args=[token()])
    except NoReverseMatch:
        path = f"/setup/{token()}/"
    return base_url.rstrip("/") + path
