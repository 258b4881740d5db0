"""Who may copy now: the limits of templates, of hosts and of workers, and who waits for a place.

A copy that runs takes along who waits for the same version, so that the source is read once; everybody else gets an
engine of their own. Whose engine crashed gets one alone. Small remainders go first.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from django.conf import settings
from django.db import transaction
from django.db.models import BooleanField, Case, Count, F, Q, QuerySet, Value, When
from django.utils import timezone

from providers_app.models import Provider
from rasweb.rows import locked, standing
from templates_app import lanes
from templates_app.models import DistributionTarget, PublishedImage, Template, TemplateVersion
from templates_app.models.target import to_be_tried
from templates_app.models.work import error
from templates_app.states import COPYING_PHASES, Desired, Phase, TemplatePhase

SPARE_WORKERS = 2
AT_ONCE = 100
# The former engine crashed, over whichever of its hosts: the next one has this host alone, and harms no other.
ALONE = "ENGINE_LOST"
# A thread of the former engine may still hang on the host: another engine, and so another process, goes on.
APART = ("STALLED", ALONE)


@dataclass(frozen=True)
class Crew:
    """Targets that were claimed together, and the provider that they are copied from."""

    source: Provider
    version: TemplateVersion
    targets: Sequence[DistributionTarget]


def waiting_templates() -> set[int]:
    """The templates with targets that need an engine of their own now."""
    if not _ordered.pks():
        return set()
    waiting = _waiting().annotate(apart=_apart).order_by()
    rows = waiting.values_list("template_id", "wanted_version_id", "apart").distinct()
    under_way = _under_way() if rows else set()
    return {template for template, version, apart in rows if apart or version not in under_way}


@standing
def _ordered() -> QuerySet[DistributionTarget]:
    wanted = DistributionTarget.objects.filter(desired=Desired.PRESENT, cancel=False)
    return wanted.filter(phase=Phase.WAITING, claim=None)


def claim(template_id: int) -> Crew | None:
    """Take as many targets as there are free places, all of one version that no running copy takes along.

    Or a single one, whose former engine crashed.
    """
    with transaction.atomic():
        template = locked(Template.objects.filter(pk=template_id)).first()
        waiting = _waiting().filter(template=template_id).exclude(_taken_along())
        free = waiting.exclude(provider__in=_full_providers()).select_related("wanted_version")
        first = _in_order(free).first()
        if template is None or first is None or _no_worker_to_spare():
            return None
        version = lanes.wanted(first)
        source = _source(template, version)
        if source is None:
            _without_source(waiting)
            return None
        together = waiting.filter(wanted_version=version).exclude(error_code=ALONE)
        alone = waiting.filter(pk=first.pk)
        taken = _take(alone if first.error_code == ALONE else together, template, source)
    return Crew(source, version, taken) if taken else None


def claim_more(crew: Crew) -> Crew | None:
    """Take targets along with a copy that runs already."""
    rows = _waiting().filter(template=crew.version.template_id, wanted_version=crew.version)
    rows = rows.exclude(error_code__in=APART)
    if not rows.exists():
        return None
    with transaction.atomic():
        template = locked(Template.objects.filter(pk=crew.version.template_id)).first()
        source = locked(Provider.objects.filter(pk=crew.source.pk)).first()
        taken = _take(rows, template, source) if template and source else []
    return Crew(crew.source, crew.version, taken) if taken else None


_apart = Case(When(error_code__in=APART, then=Value(True)), default=Value(False), output_field=BooleanField())


def _waiting() -> QuerySet[DistributionTarget]:
    return DistributionTarget.objects.filter(
        to_be_tried(),
        phase=Phase.WAITING,
        claim=None,
        desired=Desired.PRESENT,
        cancel=False,
        wanted_version__isnull=False,
        template__phase=TemplatePhase.READY,
        provider__in=Provider.objects.available(),
    )


def _in_order(rows: QuerySet[DistributionTarget]) -> QuerySet[DistributionTarget]:
    return rows.order_by(F("bytes_total") - F("bytes_done"), "pk")


def _running() -> QuerySet[DistributionTarget]:
    return DistributionTarget.objects.filter(phase__in=COPYING_PHASES).order_by()


def _under_way() -> set[int | None]:
    """The versions of copies that take others along."""
    return set(_running().exclude(error_code=ALONE).values_list("copying_version_id", flat=True))


def _taken_along() -> Q:
    return Q(wanted_version__in=_under_way() - {None}) & ~Q(error_code__in=APART)


def _take(
    rows: QuerySet[DistributionTarget], template: Template, source: Provider
) -> list[DistributionTarget]:
    """Claim the first of ``rows``, as far as there are free places. Template and source are locked."""
    free = _free(template, source)
    if free <= 0:
        return []
    rows = _in_order(rows.exclude(provider__in=_full_providers()))
    related = rows.select_related("template", "provider", "wanted_version")
    return [target for target in related[:free] if _take_one(target, source)]


def _take_one(target: DistributionTarget, source: Provider) -> bool:
    version = lanes.wanted(target)
    return target.take(
        Phase.CHECKING,
        attempt=target.attempt + 1,
        next_try_at=None,
        reading_from=source,
        copying_version=version,
        started_at=timezone.now(),
        rate=0,
        timing={},
        bytes_total=version.allocated,
    )


def _free(template: Template, source: Provider) -> int:
    """Places under the limits of the template and of the source, shared evenly with others who wait for it."""
    by_template = Counter(_running().filter(reading_from=source).values_list("template_id", flat=True))
    mine = _running().filter(template=template).count()
    free = min(template.max_concurrent - mine, source.max_copies - by_template.total())
    others = _contenders(template, source, by_template) if free > 0 else 0
    share = max(1, source.max_copies // (others + 1)) if others else source.max_copies
    return min(free, share - by_template[template.pk])


def _contenders(template: Template, source: Provider, running: Counter[int]) -> int:
    """How many other templates wait for this source and may copy more than they do."""
    waiting = _waiting().filter(template__source_provider=source).exclude(template=template).order_by()
    rows = waiting.values_list("template_id", "template__max_concurrent").distinct()
    return sum(running[pk] < limit for pk, limit in rows)


def _full_providers() -> list[int]:
    """Providers that are written to as often at once as they allow."""
    counts = _running().values("provider").annotate(copies=Count("pk"))
    return list(counts.filter(copies__gte=F("provider__max_copies")).values_list("provider", flat=True))


def _no_worker_to_spare() -> bool:
    """Long copies never take the last workers, so that short work is never kept waiting."""
    engines = _running().values("owner").distinct().count()
    return engines >= max(1, settings.WORKERS - SPARE_WORKERS)


def _source(template: Template, version: TemplateVersion) -> Provider | None:
    """The template's source host if it answers, else any other that holds the version.

    Images in doubt count only where there are no others: what they may still hold is compared as it is read.
    """
    intact = holders(version)
    holding = intact if intact.exists() else holders(version, spoilt=True)
    available = Provider.objects.available().filter(targets__in=holding)
    providers = list(locked(available))
    home = [provider for provider in providers if provider.pk == template.source_provider_id]
    return next(iter(home + providers), None)


def holders(version: TemplateVersion, *, spoilt: bool = False) -> QuerySet[DistributionTarget]:
    """The targets that hold a version: intact, as far as is known, or in doubt."""
    images = PublishedImage.objects.filter(version=version, spoilt=spoilt)
    return DistributionTarget.objects.filter(
        template=version.template_id, desired=Desired.PRESENT, pk__in=images.values("target")
    )


def _without_source(waiting: QuerySet[DistributionTarget]) -> None:
    cause = error(
        "SOURCE_UNREACHABLE",
        "No provider that holds this version intact responds.",
        "Bring one of them back online.",
    )
    silent: Iterable[DistributionTarget] = waiting.exclude(error_code="SOURCE_UNREACHABLE")[:AT_ONCE]
    for target in silent:
        target.advance(Phase.WAITING, **cause)
