"""Guessing passwords: a name and an address have a few tries in five minutes, and after them wait for the next five.

A try is counted before the password is looked at, so that many at once are no way around it, and taken back when the
password was right. The counts lie in the cache that all web processes share; while it is away nothing is counted.
"""

from __future__ import annotations

import hashlib
import ipaddress
import logging
import time

from django.conf import settings
from django.core.cache import cache
from django.http import HttpRequest

log = logging.getLogger(__name__)

PERIOD_SECONDS = 300
TRIES = {"name": 10, "address": 50}  # many people may share an address
_NETWORK_BITS = 64  # of IPv6: what one customer gets at least

clock = time.time


class Try:
    """One try to log in under a name. ``wait``: the seconds until there are new ones."""

    def __init__(self, request: HttpRequest, name: str) -> None:
        period, passed = divmod(clock(), PERIOD_SECONDS)
        self.wait = PERIOD_SECONDS - passed
        # The address first: one that has to wait uses up nobody's tries.
        parts = {"address": address_of(request), "name": name.casefold()}
        self._keys = {
            kind: f"tries-{kind}-{period:.0f}-{hashlib.sha256(part.encode()).hexdigest()}"
            for kind, part in parts.items()
            if part
        }

    def begin(self) -> bool:
        """Count it; False when it has to wait."""
        return all(self._count(kind) <= TRIES[kind] for kind in self._keys)

    def succeed(self) -> None:
        """Take it back, and with it what was mistyped before."""
        try:
            cache.delete(self._keys["name"])
            if "address" in self._keys:
                cache.decr(self._keys["address"])
        except Exception as error:  # noqa: BLE001  # the password was right, whatever the cache says
            log.warning("A login was not taken back from the count of tries: %s", error)

    def _count(self, kind: str) -> int:
        try:
            cache.add(self._keys[kind], 0, PERIOD_SECONDS)
            count = cache.incr(self._keys[kind])
        except Exception as error:  # noqa: BLE001  # nobody is kept out because a cache is away
            log.warning("A try to log in was not counted: %s", error)
            return 0
        if count == TRIES[kind] + 1:
            log.warning("Too many failed logins with one %s; more are refused for %d s.", kind, self.wait)
        return count


def address_of(request: HttpRequest) -> str:
    """Where a try comes from; empty where a proxy does not say."""
    text = request.META.get("REMOTE_ADDR", "")
    if getattr(settings, "SECURE_PROXY_SSL_HEADER", None):
        text = request.headers.get("X-Forwarded-For", "").rpartition(",")[2]  # what the nearest proxy saw
    try:
        found = ipaddress.ip_address(text.strip())
    except ValueError:
        return ""
    if found.version == 6 and found.ipv4_mapped is None:
        return str(ipaddress.ip_network((found, _NETWORK_BITS), strict=False))
    return str(getattr(found, "ipv4_mapped", None) or found)
