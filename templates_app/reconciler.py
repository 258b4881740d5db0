"""Looks at the rows and asks for the work that is due. Losing the whole queue loses nothing."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import islice
from math import inf
from typing import Any

from django.conf import settings
from django.db import transaction
from django.db.models import F, Q, QuerySet
from django_q.models import OrmQ

from providers_app.drivers.errors import SHUT_OUT
from providers_app.models import Inventory, Provider
from rasweb.refusals import Refusal
from rasweb.rows import standing
from templates_app import (
    copying,
    distribution,
    guests,
    lanes,
    leftovers,
    maintenance,
    places,
    queue,
    recreation,
    removal,
    scrub,
    workingcopy,
)
from templates_app.leases import Reaper
from templates_app.models import DistributionTarget, PublishedImage, Template
from templates_app.models.template import BUSY
from templates_app.models.work import error, no_error, older_than
from templates_app.states import Desired, Phase, TemplatePhase

log = logging.getLogger(__name__)

ASK_AGAIN_SECONDS = 5.0
SWEEP_SECONDS = 3600.0
TRANSIENT = (
    "UNREACHABLE",
    "TIMEOUT",
    "STALLED",
    "WORKER_LOST",
    "ENGINE_LOST",
    "SOURCE_UNREACHABLE",
    "IO_ERROR",
    "FAILED",
)


class Reconciler:
    """One pass a second in each worker set; several at once do no harm."""

    def __init__(self) -> None:
        self._reaper = Reaper()
        self._asked: dict[tuple[str, int], float] = {}
        self._observed: dict[int, object] = {}
        self._littered: set[int] = set()
        self._swept = time.monotonic()
        self._tidied = -inf

    def run(self) -> None:
        """One pass."""
        steps = (
            self._reaper.reap,
            self._observe,
            workingcopy.watch,
            _wake,
            _renew,
            recreation.pace,
            _expire,
            _drop,
            self._sweep,
            self._ask,
        )
        for step in steps:
            try:
                step()
            except Exception:  # one row that makes trouble keeps nothing else waiting
                log.exception("a step of the reconciler failed")

    def _ask(self) -> None:
        """Enqueue what is due, each at most every few seconds, and never more than workers can take soon."""
        now = time.monotonic()
        room = 4 * settings.WORKERS - OrmQ.objects.count()
        self._asked = {key: at for key, at in self._asked.items() if now - at < ASK_AGAIN_SECONDS}
        work = [kind.due() for kind in (maintenance, workingcopy, recreation, removal, guests, copying)]
        if now - self._tidied >= ASK_AGAIN_SECONDS:
            self._tidied = now  # nobody waits for these, and looking for them takes longest
            work += [removal.superfluous(), scrub.due()]
        for key in _in_turn(*work, [("discard", pk) for pk in self._littered]):
            if key not in self._asked and room > 0:
                self._asked[key] = now
                room -= 1
                queue.send(*key)
        self._littered = {pk for pk in self._littered if ("discard", pk) not in self._asked}

    def _sweep(self) -> None:
        if time.monotonic() - self._swept > SWEEP_SECONDS:
            self._swept = time.monotonic()
            lanes.sweep_manifests()
            lanes.sweep_journals()

    def _observe(self) -> None:
        """Compare what each good check read with what should be there."""
        for pk, read_at in Inventory.objects.values_list("pk", "read_at"):
            if self._observed.get(pk) != read_at:
                try:
                    self._compare(Inventory.objects.select_related("provider").get(pk=pk))
                except Exception:  # one host that tells nonsense hides nothing of the others
                    log.exception("what was read from provider %s can not be compared", pk)
                else:
                    self._observed[pk] = read_at

    def _compare(self, inventory: Inventory) -> None:
        guests.observe(inventory.provider, inventory)
        _observe_images(inventory)
        workingcopy.observe(inventory)
        if leftovers.unwanted(inventory):
            self._littered.add(inventory.pk)


def _in_turn(*kinds: Iterable[tuple[str, int]]) -> Iterator[tuple[str, int]]:
    """One of each kind after the other, so that many of one keep no other waiting."""
    turns = deque(map(iter, kinds))
    while turns:
        kind = turns.popleft()
        for key in islice(kind, 1):
            yield key
            turns.append(kind)


def _observe_images(inventory: Inventory) -> None:
    """An installed image that is gone or was changed is no longer OK."""
    there = {image["name"]: image["stamp"] for image in inventory.images}
    installed = DistributionTarget.objects.filter(
        older_than(inventory.read_at), provider=inventory.provider_id, phase=Phase.INSTALLED, claim=None
    )
    images = PublishedImage.objects.filter(
        target__in=installed, version=F("target__installed_version"), spoilt=False
    )
    wrong: dict[int, str] = {}
    for pk, name, stamp in images.order_by("disk").values_list("target", "name", "stamp"):
        if there.get(name) != stamp:
            wrong.setdefault(pk, name)
    if not wrong:
        return
    for target in installed.filter(pk__in=wrong).select_related("template", "provider"):
        name = wrong[target.pk]
        if name in there:
            _spoilt(target, "CONTENT_CHANGED", f"The image {name} on {target.provider} was changed by hand.")
        else:
            _spoilt(target, "CONTENT_LOST", f"The image {name} is missing on {target.provider}.")


def _spoilt(target: DistributionTarget, code: str, text: str) -> None:
    with transaction.atomic():
        if target.advance(Phase.FAILED, **error(code, text, "Retry to copy it again.")):
            target.spoil(target.installed_version)


def _wake() -> None:
    """Work that failed or waits because of a silent provider goes on as soon as it is back."""
    for target in _back():
        if target.provider.available and (target.phase == Phase.FAILED or target.next_try_at is not None):
            note = f"{target.provider} is back."
            target.advance(Phase.WAITING, note, attempt=0, next_try_at=None, **no_error())
    for target in _without_source():
        version = target.wanted_version
        back_now = Provider.objects.available().filter(online_since__gt=target.changed_at)
        if version and places.holders(version).filter(provider__in=back_now).exists():
            note = f"A provider that holds version {version.number} is back."
            target.advance(Phase.WAITING, note, attempt=0, next_try_at=None, **no_error())


@standing
def _back() -> QuerySet[DistributionTarget]:
    """Targets that failed or wait because of a provider that answered since."""
    rows = DistributionTarget.objects.filter(claim=None, phase__in=[Phase.FAILED, Phase.WAITING])
    shut_out = Q(error_code__in=SHUT_OUT, phase=Phase.WAITING)
    back = rows.filter(Q(error_code__in=TRANSIENT) | shut_out, changed_at__lt=F("provider__online_since"))
    return back.select_related("provider", "template")


@standing
def _without_source() -> QuerySet[DistributionTarget]:
    """Targets that failed or wait because nobody who holds their version answered."""
    rows = DistributionTarget.objects.filter(claim=None, error_code="SOURCE_UNREACHABLE")
    waiting = rows.filter(Q(phase=Phase.FAILED) | Q(phase=Phase.WAITING, next_try_at__isnull=False))
    return waiting.select_related("provider", "template", "wanted_version")


def _renew() -> None:
    """An order that came while a worker finished: another version is wanted, or none.

    No present target goes on wanting another version than the template's current one, whoever left it so.
    """
    for target in _late():
        current = target.template.current_version
        if current and target.desired == Desired.PRESENT and target.wanted_version_id != current.pk:
            distribution.want(target, current, "")
            continue
        fresh: dict[str, Any] = {"attempt": 0, "next_try_at": None, "bytes_done": 0, "bytes_peak": 0}
        target.advance(Phase.WAITING, "Ordered meanwhile.", **fresh)


@standing
def _late() -> QuerySet[DistributionTarget]:
    idle = DistributionTarget.objects.filter(phase=Phase.INSTALLED, claim=None)
    wanted = Q(wanted_version=F("template__current_version")) | Q(template__current_version=None)
    late = idle.exclude(wanted, installed_version=F("wanted_version"), desired=Desired.PRESENT)
    return late.exclude(template__phase__in=BUSY).select_related("template__current_version", "provider")


def _expire() -> None:
    for guest in guests.expired():
        with suppress(Refusal):  # somebody moved the guest meanwhile
            guests.delete(guest, by="the end of its time for inspection")


def _drop() -> None:
    for template in _deleted():
        removal.drop_deleted(template)


@standing
def _deleted() -> QuerySet[Template]:
    return Template.objects.filter(phase=TemplatePhase.DELETING, targets=None)
