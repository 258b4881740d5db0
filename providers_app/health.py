"""Health checks: who answers, what is there. Short, parallel, each with a hard time-out.

Nothing else says what is true of a host. Whoever has reason to believe that something changed asks for a check.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from datetime import datetime, timedelta

from django.conf import settings
from django.db import connections, transaction
from django.db.models import Q, QuerySet
from django.utils import timezone

from providers_app.crew import Crew
from providers_app.drivers.base import Survey
from providers_app.drivers.errors import DriverError, Unreachable
from providers_app.hostcalls import HostAddress, call_many
from providers_app.models import Inventory, Provider, Reachability
from rasweb.refusals import Refusal
from rasweb.rows import locked, standing

log = logging.getLogger(__name__)

CHECK_SECONDS = 10.0
SILENT_CHECKS = 3
RETRY_SECONDS = 10
GAP_SECONDS = 2
ONE_SILENCE = timedelta(hours=1)
MOST_ROUNDS = 4
_checking: set[int] = set()


def sweep() -> None:
    """Begin to check every provider that is due, and return: a host that hangs delays no check of others.

    Several sweeps at once, in whatever processes, share the work.
    """
    _rounds.wait_for_room()
    if mine := due():
        _checking.update(provider.pk for provider in mine)
        _rounds.begin(mine)


def due() -> list[Provider]:
    """Take over the checks that are due now. What this process checks already has to wait until that is done.

    However often somebody asks, a host that was just checked is left alone for a moment. A check that is further away
    than one interval was planned before the clock was set back, or the interval made shorter.
    """
    now = timezone.now()
    too_late = now + timedelta(seconds=settings.CHECK_INTERVAL + 1)
    just_now = now - timedelta(seconds=min(GAP_SECONDS, settings.CHECK_INTERVAL))
    rows = _planned(now=now, just_now=just_now, too_late=too_late)
    return [provider for provider in rows if provider.pk not in _checking and _claim(provider)]


@standing
def _planned(now: datetime, just_now: datetime, too_late: datetime) -> QuerySet[Provider]:
    again = Q(next_check_at__lte=now) & ~Q(last_checked_at__range=(just_now, now))
    planned = Q(next_check_at=None) | again | Q(next_check_at__gt=too_late)
    return Provider.objects.filter(planned, enabled=True)


def _round(providers: list[Provider]) -> None:
    left = {provider.pk for provider in providers}
    try:
        for provider, _ in _checks(providers):
            left.discard(provider.pk)
            _checking.discard(provider.pk)
    except Exception:
        log.exception("A round of checks failed; its providers are checked again after the usual interval")
    finally:
        _checking.difference_update(left)
        connections.close_all()


_rounds = Crew("checks", _round, MOST_ROUNDS)


def check_soon(keys: Iterable[int]) -> None:
    """Bring the next checks of these providers forward."""
    now = timezone.now()
    Provider.objects.filter(pk__in=keys, enabled=True, next_check_at__gt=now).update(next_check_at=now)


def check(providers: Iterable[Provider]) -> dict[int, Survey | DriverError]:
    """Survey these providers in parallel, record what was found, and return it by primary key."""
    return {provider.pk: answer for provider, answer in _checks(providers)}


def _checks(providers: Iterable[Provider]) -> Iterator[tuple[Provider, Survey | DriverError]]:
    """Yield each provider with what was found, once it is recorded, in the order in which they answer."""
    began = timezone.now()
    by_key = {provider.pk: provider for provider in providers}
    addresses, unreadable = _addresses(by_key.values())
    for key, answer in unreadable.items():
        record(by_key[key], answer, began)
        yield by_key[key], answer
    for key, answer in call_many(addresses, "survey", timeout=CHECK_SECONDS):
        record(by_key[key], answer, began)
        yield by_key[key], answer


class Inquiry:
    """The same for who has other work meanwhile: the hosts are asked in a thread, which leaves the database alone."""

    def __init__(self, providers: Iterable[Provider]) -> None:
        self._began = timezone.now()
        self._by_key = {provider.pk: provider for provider in providers}
        addresses, self._answers = _addresses(self._by_key.values())
        self._thread = threading.Thread(target=self._ask, args=(addresses,), name="inquiry", daemon=True)
        self._thread.start()

    def _ask(self, addresses: Mapping[int, HostAddress]) -> None:
        self._answers.update(call_many(addresses, "survey", timeout=CHECK_SECONDS))

    @property
    def done(self) -> bool:
        return not self._thread.is_alive()

    def wait(self, seconds: float) -> bool:
        """Wait for the answers, no longer than that; whether they are there."""
        self._thread.join(seconds)
        return self.done

    def answers(self) -> dict[int, Survey | DriverError]:
        """Record what was found and return it by primary key; a host that nobody could ask is an error too."""
        self._thread.join()
        for key, provider in self._by_key.items():
            record(provider, self._answers.setdefault(key, _not_asked()), self._began)
        return self._answers


def _addresses(
    providers: Iterable[Provider],
) -> tuple[dict[int, HostAddress], dict[int, Survey | DriverError]]:
    """Where to ask, and the errors of those whose secrets can not be read."""
    addresses: dict[int, HostAddress] = {}
    errors: dict[int, Survey | DriverError] = {}
    for provider in providers:
        try:
            addresses[provider.pk] = provider.address()
        except Refusal as refusal:
            errors[provider.pk] = _unreadable(refusal)
    return addresses, errors


def record(provider: Provider, answer: Survey | DriverError, began: datetime | None = None) -> None:
    """Write down what a check found that ``began`` then, unless one that began later was written down already."""
    began = began or timezone.now()
    with transaction.atomic():
        try:
            provider.refresh_from_db(from_queryset=locked(Provider.objects.all()))
        except Provider.DoesNotExist:
            return
        # A time in the future is that of a clock which was set back since.
        if provider.last_checked_at and began < provider.last_checked_at <= timezone.now():
            return
        before = provider.standing
        if isinstance(answer, DriverError):
            _failed(provider, answer, began)
        else:
            _seen(provider, answer, began)
        if provider.standing == before:
            provider.announce_check()
        else:
            provider.announce()


def suspect(provider: Provider, code: str, text: str) -> None:
    """Work on the provider went unanswered: believe it at once, look again soon."""
    try:
        provider.touch(
            reachability=Reachability.NOT_AVAILABLE,
            failures=SILENT_CHECKS,
            error_code=code,
            error_text=text,
            error_action="",
            next_check_at=_retry_at(provider),
        )
    except Provider.DoesNotExist:  # it was forgotten meanwhile
        return
    provider.announce()


def require(provider: Provider) -> None:
    """Refuse an order that needs ``provider`` while it is not available. What is not known is asked first."""
    if provider.enabled and provider.stale:
        check([provider])
        provider.refresh_from_db()
    if not provider.available:
        raise Refusal(f"{provider} is not available.", "NOT_AVAILABLE", "Check the provider, then try again.")


def _claim(provider: Provider) -> bool:
    later = timezone.now() + timedelta(seconds=settings.CHECK_INTERVAL)
    same = Provider.objects.filter(pk=provider.pk, next_check_at=provider.next_check_at)
    return bool(same.update(next_check_at=later))


def _seen(provider: Provider, survey: Survey, began: datetime) -> None:
    fresh = provider.available or _only_suspected(provider)
    Inventory.objects.update_or_create(
        provider=provider,
        defaults={
            "vms": [asdict(vm) for vm in survey.vms],
            "guests": [asdict(vm) for vm in survey.guests],
            "images": [asdict(image) for image in survey.images],
            "staged": [asdict(image) for image in survey.staged],
            "hardware": survey.hardware,
            "read_at": began,
        },
    )
    provider.touch(
        reachability=Reachability.ONLINE,
        failures=0,
        error_code="",
        error_text="",
        error_action="",
        last_checked_at=began,
        last_seen_at=began,
        online_since=provider.online_since if fresh else timezone.now(),
        **_silence(provider, began),
        capabilities=sorted(survey.can),
        networks=None if survey.networks is None else list(survey.networks),
        free_bytes=survey.free_bytes,
        total_bytes=survey.total_bytes,
    )
    if not fresh:
        log.info("provider %s answers", provider.name)


def _silence(provider: Provider, began: datetime) -> dict[str, datetime]:
    """What to note of a silence that ends now: whatever the reason, the host may have been without power meanwhile.

    One that follows soon after another is the same: what was to be done about that one may not be done yet.
    """
    silent = provider.failures > 0 or provider.stale
    if not silent or provider.last_seen_at is None:
        return {}
    last, first = provider.silence_ended_at, provider.silence_began_at
    same = last is not None and first is not None and began - last < ONE_SILENCE
    return {"silence_began_at": first if same and first else provider.last_seen_at, "silence_ended_at": began}


def _only_suspected(provider: Provider) -> bool:
    """Work went unanswered, but no check ever failed: the host was not away, so it is not back either.

    Otherwise a host that answers checks and swallows copies would be given a fresh start each time, for ever.
    """
    suspected = provider.reachability == Reachability.NOT_AVAILABLE and not provider.stale
    return suspected and provider.last_checked_at == provider.last_seen_at


def _failed(provider: Provider, error: DriverError, began: datetime) -> None:
    failures = provider.failures + 1
    silent = failures >= SILENT_CHECKS or provider.reachability == Reachability.UNKNOWN
    provider.touch(
        reachability=Reachability.NOT_AVAILABLE if silent else provider.reachability,
        failures=failures,
        last_checked_at=began,
        error_code=error.code,
        error_text=error.text,
        error_action=error.action,
        next_check_at=_retry_at(provider),
    )
    log.warning("provider %s: %s %s", provider.name, error.code, error.text)


def _retry_at(provider: Provider) -> datetime:
    """When to look again: soon, or at once when somebody asked for it meanwhile."""
    soon = timezone.now() + timedelta(seconds=min(RETRY_SECONDS, settings.CHECK_INTERVAL))
    return min(soon, provider.next_check_at or soon)


def _not_asked() -> DriverError:
    return DriverError(
        "The host was not asked.", action="It is tried again by itself; the log has the details."
    )


def _unreadable(refusal: Refusal) -> DriverError:
    return Unreachable(refusal.text, code=refusal.code, action=refusal.action)
