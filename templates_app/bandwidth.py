"""How fast copies may send, now: what administrators set is shared by all who send at this moment.

A job begins with the shares of that moment; then each running engine compares once a second and is told what changed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace

from providers_app.models import Installation, Provider
from templates_app.models import DistributionTarget, Template
from templates_app.states import Phase, TemplatePhase
from templates_app.transfer.job import Job, LaneJob
from templates_app.transfer.process import Engine

SEALING = (TemplatePhase.CREATING, TemplatePhase.EXITING)


class Limits:
    """What one engine was told so far: by lane, and under None for all its lanes together. 0 is no limit."""

    def __init__(self) -> None:
        self._told: dict[str | None, int] = {}

    def begin(self, job: Job, targets: Iterable[DistributionTarget]) -> Job:
        """The job with the shares of its lanes, as if all of them were sending already."""
        mine = _hosts(targets)
        rates = _rates(mine, len(mine), _sending() + Counter(mine.values()))
        return self._put(job, rates)

    def join(self, lane: LaneJob, target: DistributionTarget) -> LaneJob:
        """The same for one lane that joins a job."""
        mine = _hosts([target])
        self._told[lane.id] = _rates(mine, 1, _sending() + Counter(mine.values()))[lane.id]
        return replace(lane, bandwidth=self._told[lane.id])

    def adjust(self, engine: Engine, targets: Iterable[DistributionTarget]) -> None:
        """Tell the engine of these targets what is not as it was told."""
        targets = list(targets)
        here = sum(target.phase == Phase.COPYING for target in targets)
        self._tell(engine, _rates(_hosts(targets), here, _sending()))

    def begin_sealing(self, job: Job, provider: Provider, lane: str) -> Job:
        """The job of a sealing, which has one lane."""
        return self._put(job, _rates_of_sealing(provider, lane))

    def adjust_sealing(self, engine: Engine, provider: Provider, lane: str) -> None:
        provider.refresh_from_db(fields=["bandwidth_limit"])
        self._tell(engine, _rates_of_sealing(provider, lane))

    def begin_reading(self, job: Job, provider: Provider, lane: str, most: int) -> Job:
        """The job of a reading, which has one lane and sends nothing; ``most`` is its own limit."""
        return self._put(job, {lane: _lower(provider.bandwidth, most)})

    def adjust_reading(self, engine: Engine, provider: Provider, lane: str, most: int) -> None:
        provider.refresh_from_db(fields=["bandwidth_limit"])
        self._tell(engine, {lane: _lower(provider.bandwidth, most)})

    def _put(self, job: Job, rates: Mapping[str | None, int]) -> Job:
        self._told = dict(rates)
        lanes = [replace(lane, bandwidth=rates.get(lane.id, 0)) for lane in job.lanes]
        return replace(job, bandwidth=rates.get(None, 0), lanes=lanes)

    def _tell(self, engine: Engine, rates: Mapping[str | None, int]) -> None:
        for lane, rate in rates.items():
            if self._told.get(lane, 0) != rate:
                self._told[lane] = rate
                engine.limit(rate, lane)


def _hosts(targets: Iterable[DistributionTarget]) -> dict[str, int]:
    """By lane: the provider that it sends to."""
    return {str(target.pk): target.provider_id for target in targets}


def _sending() -> Counter[int]:
    """By provider: how many targets are sent to now."""
    rows = DistributionTarget.objects.filter(phase=Phase.COPYING).order_by()
    return Counter(rows.values_list("provider_id", flat=True))


def _rates(mine: Mapping[str, int], here: int, sending: Counter[int]) -> dict[str | None, int]:
    """For each lane of ``mine`` its part of the provider's limit; for the ``here`` that send, that of all copies."""
    providers = Provider.objects.in_bulk(set(mine.values()))
    rates: dict[str | None, int] = {
        lane: _share(providers[pk].bandwidth, 1, sending[pk]) for lane, pk in mine.items() if pk in providers
    }
    return rates | {None: _share(Installation.bandwidth(), here, sending.total() + _sealing())}


def _rates_of_sealing(provider: Provider, lane: str) -> dict[str | None, int]:
    every = _sending().total() + _sealing()
    return {lane: provider.bandwidth, None: _share(Installation.bandwidth(), 1, every)}


def _lower(one: int, other: int) -> int:
    """The lower of two limits; 0 is none."""
    return min(one, other) if one and other else one or other


def _share(limit: int, mine: int, every: int) -> int:
    """The part of ``limit`` for ``mine`` of ``every`` that send; 0 stays no limit."""
    return max(1, limit * max(1, mine) // max(1, mine, every)) if limit else 0


def _sealing() -> int:
    return Template.objects.filter(phase__in=SEALING, claim__isnull=False).count()
