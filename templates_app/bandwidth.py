"""How fast copies may send, now: what administrators set is shared by all who send at this moment.

Each running engine compares once a second and is told what changed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from providers_app.models import Installation, Provider
from templates_app.models import DistributionTarget, Template
from templates_app.states import COPYING_PHASES, Phase, TemplatePhase
from templates_app.transfer.process import Engine

SEALING = (TemplatePhase.CREATING, TemplatePhase.EXITING)


class Limits:
    """What one engine was told so far: by lane, and under None for all its lanes together."""

    def __init__(self) -> None:
        self._told: dict[str | None, int] = {}

    def adjust(self, engine: Engine, targets: Iterable[DistributionTarget]) -> None:
        """Tell the engine of these targets what is not as it was told."""
        rows = DistributionTarget.objects.filter(phase__in=COPYING_PHASES).order_by()
        sending = Counter(rows.filter(phase=Phase.COPYING).values_list("provider_id", flat=True))
        mine = {str(target.pk): target.provider_id for target in targets}
        providers = Provider.objects.in_bulk(set(mine.values()))
        for lane, pk in mine.items():
            if pk in providers:
                self._tell(engine, _share(providers[pk].bandwidth, 1, sending[pk]), lane)
        here = sum(target.phase == Phase.COPYING for target in targets)
        self._tell(engine, _share(Installation.bandwidth(), here, sending.total() + _sealing()), None)

    def adjust_sealing(self, engine: Engine, provider: Provider, lane: str) -> None:
        """The same for the one lane of a sealing."""
        provider.refresh_from_db(fields=["bandwidth_limit"])
        sending = DistributionTarget.objects.filter(phase=Phase.COPYING).count() + _sealing()
        self._tell(engine, provider.bandwidth, lane)
        self._tell(engine, _share(Installation.bandwidth(), 1, sending), None)

    def _tell(self, engine: Engine, rate: int, lane: str | None) -> None:
        if self._told.get(lane, 0) != rate:
            self._told[lane] = rate
            engine.limit(rate, lane)


def _share(limit: int, mine: int, every: int) -> int:
    """The part of ``limit`` for ``mine`` of ``every`` that send; 0 stays no limit."""
    return max(1, limit * max(1, mine) // max(1, mine, every)) if limit else 0


def _sealing() -> int:
    return Template.objects.filter(phase__in=SEALING, claim__isnull=False).count()
