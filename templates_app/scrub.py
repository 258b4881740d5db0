"""The scrub: each installed image is read again now and then, when nothing else wants its host.

One image at a time: first those of which a host may have lost something when its power was cut, then the one that was
verified longest ago. It gives way to all other work, and after a while to the next image, and goes on later from where
it was; what it found wrong is told like any verification.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from contextlib import ExitStack
from datetime import datetime, timedelta
from math import inf

from django.conf import settings
from django.db import transaction
from django.db.models import BooleanField, ExpressionWrapper, F, Q, QuerySet
from django.utils import timezone

from providers_app.drivers import KINDS, load
from providers_app.models import Provider
from rasweb.workers import stopping
from templates_app.models import DistributionTarget, GuestVM
from templates_app.models.target import to_be_tried
from templates_app.places import SPARE_WORKERS
from templates_app.states import COPYING_PHASES, Desired, Phase, TemplatePhase
from templates_app.verification import Reading

# Linux begins to write what is 30 seconds old, and looks every 5 (vm.dirty_expire_centisecs and its sibling).
UNWRITTEN = timedelta(minutes=2)
WORKING = COPYING_PHASES | {Phase.REMOVING}


def due() -> Iterable[tuple[str, int]]:
    """The next image to read again, if there is one and nothing is in its way."""
    if not _room():
        return  # asked every second: most often the answer is no
    target = _candidates().first()
    if target is not None and not _reading():
        yield "scrub", target.pk


def work(pk: int) -> None:
    """Read one image again."""
    with transaction.atomic():
        if pk not in (key for _, key in due()):
            return
        target = _candidates().get(pk=pk)
        doubtful = DistributionTarget.objects.filter(_in_doubt(), pk=pk).exists()
        if not target.take(Phase.INSTALLED):
            return
    # In doubt, what was found right before counts for nothing: a time slice would begin anew each time.
    ends = inf if doubtful else time.monotonic() + settings.SCRUB_SECONDS

    def gives_way() -> bool:
        alone = _room() and _undisturbed().filter(pk=target.pk).exists()
        return stopping() or time.monotonic() > ends or not alone

    with ExitStack() as engines:
        reading = Reading(
            target,
            engines,
            bandwidth=settings.SCRUB_BANDWIDTH,
            compared=0 if doubtful else target.compared,
            gives_way=gives_way,
        )
        while reading.step():
            pass


def _candidates() -> QuerySet[DistributionTarget]:
    now = timezone.now()
    return (
        _undisturbed()
        .filter(to_be_tried(), claim=None)
        .annotate(in_doubt=ExpressionWrapper(_in_doubt(), BooleanField()))
        .filter(_in_doubt() | _aged(now))
        .select_related("template", "provider", "wanted_version", "installed_version")
        .order_by("-in_doubt", "verified_at")
    )


def _aged(now: datetime) -> Q:
    return (
        Q(verified_at__lt=now - timedelta(days=settings.SCRUB_DAYS)) if settings.SCRUB_DAYS else Q(pk__in=[])
    )


def _in_doubt() -> Q:
    """Verified shortly before its host fell silent, on a host that may not have written it to its disks by then."""
    return Q(
        provider__kind__in=[kind for kind in KINDS if not load(kind).flushes],
        verified_at__gt=F("provider__silence_began_at") - UNWRITTEN,
        verified_at__lt=F("provider__silence_ended_at"),
    )


def _undisturbed() -> QuerySet[DistributionTarget]:
    """Installed targets of whose host and template nothing else is wanted now."""
    copies = DistributionTarget.objects.filter(phase__in=WORKING)
    guests = GuestVM.objects.filter(claim__isnull=False)
    return (
        DistributionTarget.objects.filter(
            phase=Phase.INSTALLED,
            desired=Desired.PRESENT,
            installed_version=F("wanted_version"),
            template__phase=TemplatePhase.READY,
            provider__in=Provider.objects.available(),
        )
        .exclude(provider__in=copies.values("provider"))
        .exclude(provider__in=copies.filter(reading_from__isnull=False).values("reading_from"))
        .exclude(provider__in=guests.values("provider"))
        .exclude(template__in=copies.values("template"))
    )


def _reading() -> bool:
    """Whether any installed image is being read or tidied by somebody already."""
    return DistributionTarget.objects.filter(phase=Phase.INSTALLED, claim__isnull=False).exists()


def _room() -> bool:
    """Whether a worker is left for the scrub that no copy wants; never the only one."""
    copies = DistributionTarget.objects.filter(phase__in=COPYING_PHASES).order_by()
    engines = copies.values("owner").distinct().count()
    return settings.WORKERS > 1 and engines < max(1, settings.WORKERS - SPARE_WORKERS)
