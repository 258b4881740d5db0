"""Passwords and keys of providers: only ciphertext in the database, bound to the endpoint they were given for."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from django.conf import settings

from rasweb.refusals import Refusal


def seal(secrets: Mapping[str, str], kind: str, endpoint: Mapping[str, Any]) -> str:
    """Return the ciphertext of ``secrets``; nothing for nothing."""
    if not secrets:
        return ""
    plain = json.dumps({"bound": _binding(kind, endpoint), "secrets": dict(secrets)})
    return _fernet(tuple(settings.FIELD_KEYS)).encrypt(plain.encode()).decode()


def unseal(sealed: str, kind: str, endpoint: Mapping[str, Any]) -> dict[str, str]:
    """Return the secrets. A wrong key or another endpoint than they were given for is refused, never swallowed."""
    if not sealed:
        return {}
    try:
        content = json.loads(_fernet(tuple(settings.FIELD_KEYS)).decrypt(sealed.encode()))
    except InvalidToken as error:
        raise Refusal(
            "The stored credentials can not be read with the present field keys.",
            "SECRETS_UNREADABLE",
            "Restore RASWEB_FIELD_KEYS or enter the credentials again.",
        ) from error
    if content["bound"] != _binding(kind, endpoint):
        raise Refusal(
            "The stored credentials were given for another address.",
            "SECRETS_UNBOUND",
            "Enter the credentials again.",
        )
    return dict(content["secrets"])


def _binding(kind: str, endpoint: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps([kind, endpoint], sort_keys=True).encode()).hexdigest()


@lru_cache(maxsize=4)
def _fernet(keys: tuple[str, ...]) -> MultiFernet:
    return MultiFernet([Fernet(key) for key in keys])
