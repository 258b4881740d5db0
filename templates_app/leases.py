"""Holding and losing claims: calls that renew the lease while they wait, and the reaper of dead workers."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from functools import partial
from typing import Any

from django.conf import settings

from providers_app import health
from providers_app.drivers.errors import DriverError, Unreachable, away
from providers_app.hostcalls import Stopped, call
from providers_app.models import Provider
from rasweb.rows import standing
from templates_app.lanes import Pulse
from templates_app.models import DistributionTarget, GuestVM, RecreateRun, Template, Work
from templates_app.models.work import process_is_gone

log = logging.getLogger(__name__)

KINDS: tuple[type[Work], ...] = (Template, DistributionTarget, GuestVM, RecreateRun)
_CLAIMED = [standing(partial(model._default_manager.filter, claim__isnull=False)) for model in KINDS]


def ask(row: Work, provider: Provider, verb: str, *, timeout: float, **args: Any) -> Any:
    """Call a driver's verb for the holder of ``row``'s claim.

    Stopped when the claim is lost meanwhile, or the row was moved under it: something else is wanted by now.
    A database that is away for a moment costs a driver that works nothing.
    An unanswered call makes the provider Not available at once, and so does a host that lets rasweb in no more.
    """
    began = row.phase

    def beat() -> None:
        if not row.report() or row.phase != began:
            raise Stopped

    try:
        return call(provider.address(), verb, timeout=timeout, on_tick=Pulse(beat, seconds=0), **args)
    except DriverError as error:
        if not (isinstance(error, Unreachable) or away(error.code, error.permanent)):
            raise
        health.suspect(provider, error.code, error.text)
        raise Unreachable(error.text, code=error.code, action=error.action) from error


class Reaper:
    """Takes rows from workers that are gone.

    A claim is dead when its process is known to have ended, or when the same beat was seen for a whole lease on this
    process's own monotonic clock, so that wall clocks may jump.
    """

    def __init__(self) -> None:
        self._seen: dict[tuple[type[Work], int], tuple[object, int, float]] = {}

    def reap(self) -> int:
        """Look at all claims once; return how many were taken."""
        now, taken = time.monotonic(), 0
        seen: dict[tuple[type[Work], int], tuple[object, int, float]] = {}
        for row in self._claimed():
            key = (type(row), row.pk)
            claim, beat, since = self._seen.get(key, (None, -1, now))
            since = since if (claim, beat) == (row.claim, row.beat) else now
            if process_is_gone(row.owner) or now - since > settings.LEASE_SECONDS:
                taken += self._take(row)
            else:
                seen[key] = (row.claim, row.beat, since)
        self._seen = seen
        return taken

    @staticmethod
    def _claimed() -> Iterable[Work]:
        for claimed in _CLAIMED:
            yield from claimed()

    @staticmethod
    def _take(row: Work) -> bool:
        beat = row.beat
        still = type(row)._default_manager.filter(pk=row.pk, claim=row.claim, beat=beat).exists()
        if not still:
            return False
        log.warning("%s: taken over from %s", row, row.owner)
        return row.recover()
