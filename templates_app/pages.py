"""Parts of pages: the same for a row of a list, for the answer to a click and for a live update.

A part is a leaf: a cell, a line, a number, with an id made of a primary key and the moment it was read as ``data-v``.
It holds no list, so that swapping it costs no focus and no selection. What a list holds is told by a *sign*: a part
whose value changes with the list, upon which the page reads the list again.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from django.core.paginator import Page, Paginator
from django.db.models import Case, Count, F, Q, QuerySet, Sum, When
from django.db.models.functions import Least
from django.http import HttpRequest
from django.template.loader import render_to_string
from django.utils import timezone
from django.utils.functional import SimpleLazyObject

from providers_app.models import Provider
from providers_app.parts import order_signs, provider_parts
from rasweb import access, listing
from rasweb.listing import PER_PAGE, Sign, list_sign
from rasweb.stamps import stamp
from templates_app import activity, looks
from templates_app.chrome import Chrome
from templates_app.models import DistributionTarget, Event, GuestVM, RecreateRun, Template
from templates_app.models.guest import LIVE_RUNS
from templates_app.states import Facts, GuestPhase, Phase

Key = tuple[str, int]
Wanted = Mapping[str, Collection[int]]

KINDS = {"distributiontarget": "target", "guestvm": "guest", "recreaterun": "run"}
LIST_CELLS = ("status", "distribution", "ready", "guests", "version", "changed")
TEMPLATE_CELLS = (*LIST_CELLS, "notice", "footer", "retry", "work")
TARGET_CELLS = ("state", "progress", "action", "version")
GUEST_CELLS = ("state", "power", "version")
GUESTS_SHOWN = 200  # on pages about something else
EVENTS_SHOWN = 40


@dataclass(frozen=True)
class Frame:
    """``parts``: HTML fragments, each root element with ``id`` and ``data-v``. ``refresh``: read the page again."""

    parts: str
    refresh: bool = False


def frame(topic: str, keys: set[Key]) -> Frame:
    """What the pages of ``topic`` show of the rows that changed. Unknown topics and vanished rows: read again."""
    name, _, pk = topic.partition(":")
    builder = FRAMES.get(name)
    if builder is None:
        return Frame("", refresh=True)
    return builder(stamp(), _by_kind(keys), int(pk or 0))


def recent(since: datetime) -> dict[str, set[Key]]:
    """Rows that changed since then, by the topics that show them; and providers that are not known about any more."""
    found: dict[str, set[Key]] = defaultdict(set)
    for model in (Template, DistributionTarget, GuestVM, RecreateRun):
        for row in model.objects.filter(changed_at__gte=since):
            for topic in row.topics():
                found[topic].add((kind_of(row), row.pk))
    stale = Provider.stale_before()
    faded = Q(last_seen_at__lte=stale, last_seen_at__gt=stale - (timezone.now() - since))
    for provider in Provider.objects.filter(faded | Q(changed_at__gte=since)):
        for topic in provider.topics():
            found[topic].add(("provider", provider.pk))
    return dict(found)


def parts(*rows: Template | DistributionTarget | GuestVM | RecreateRun | Provider) -> str:
    """All leaves of these rows as they are now, for the answer to a click; a page ignores those it does not show."""
    v, wanted = stamp(), _by_kind({(kind_of(row), row.pk) for row in rows})
    html = _template_parts(v, loaded(_of(wanted))) + _target_parts(v, wanted.get("target", ()))
    return html + _guest_parts(v, wanted.get("guest", ())) + provider_parts(v, wanted.get("provider", ()))


def chrome(request: HttpRequest) -> dict[str, Any]:
    """Context of every page: who looks, when it was read, and what stands round the page."""
    held = access.role(request.user) if hasattr(request, "user") else None
    known = {"role": held, "v": getattr(request, "v", None) or stamp()}
    if held:
        known["chrome"] = SimpleLazyObject(lambda: Chrome.of(request, held))
    return known


def loaded(rows: QuerySet[Template]) -> list[Template]:
    """Templates with what their cells need: counts of guests, targets, and the words over them."""
    templates = list(rows.select_related("source_provider", "current_version"))
    groups, copied = _groups(templates), defaultdict(list)
    for target in DistributionTarget.objects.filter(template__in=templates, phase=Phase.COPYING).order_by():
        copied[target.template_id].append(target)
    counts = _guest_counts(templates)
    live = RecreateRun.objects.filter(template__in=templates, phase__in=LIVE_RUNS)
    runs = {run.template_id: run for run in live}
    for template in templates:
        template.distribution = looks.distribution(template, groups[template.pk], copied[template.pk])
        template.guest_count, template.outdated_count = counts.get(template.pk, (0, 0))
        template.live_run = runs.get(template.pk)
    return templates


def _groups(templates: list[Template]) -> dict[int, list[looks.Group]]:
    """By template: its targets, counted by all that their words are made of."""
    made = {template.pk: template.made for template in templates}
    current = Case(When(installed_version=F("wanted_version"), then=True), default=False)
    available = Case(When(provider__in=Provider.objects.available(), then=True), default=False)
    rows = DistributionTarget.objects.filter(template__in=templates).order_by()
    rows = rows.annotate(current=current, available=available)
    names = ("template_id", "desired", "intent", "phase", "current", "available")
    copied = ~Q(phase=Phase.INSTALLED, provider=F("template__source_provider"))
    total = Sum("bytes_total", filter=copied, default=0)
    done = Sum(Least("bytes_done", "bytes_total"), filter=copied, default=0)
    groups = defaultdict(list)
    stopped = Count("pk", filter=looks.STOPPED)
    counted = rows.values_list(*names).annotate(n=Count("pk"), total=total, done=done, stopped=stopped)
    for template, *facts, count, total, sent, cancelled in counted:
        shared = replace(Facts(*facts), made=made[template])
        groups[template].append(looks.Group(shared, count, total, sent, cancelled))
    return groups


def shown_targets(template: Template, number: str = "1") -> Page[DistributionTarget]:
    """A page of a template's targets by name; where one page does not hold them all, who needs a person first."""
    rows = targets_of(template=template)
    if rows.count() > PER_PAGE:
        first = Case(When(phase=Phase.FAILED, then=0), When(claim__isnull=False, then=1), default=2)
        rows = rows.annotate(first=first).order_by("first", "provider__name")
    return Paginator(rows, PER_PAGE).get_page(number)


def _guest_counts(templates: list[Template]) -> dict[int, tuple[int, int]]:
    """By template: how many guests, and how many of them are outdated."""
    outdated = ~Q(version=F("template__current_version")) & ~Q(phase=GuestPhase.DELETING)
    living = GuestVM.objects.filter(template__in=templates).order_by().values_list("template")
    rows = living.annotate(every=Count("pk"), old=Count("pk", filter=outdated))
    return {pk: (every, old) for pk, every, old in rows}


def targets_of(**filters: Any) -> QuerySet[DistributionTarget]:
    related = ("provider", "template", "wanted_version", "installed_version")
    return DistributionTarget.objects.filter(**filters).select_related(*related)


def guests_of(**filters: Any) -> QuerySet[GuestVM]:
    return GuestVM.objects.filter(**filters).select_related("template", "provider", "version")


def targets_sign(template: Template) -> Sign:
    """Changes with the list of a template's targets, and when all of them look different since it failed."""
    sign = list_sign(f"targets-{template.pk}", targets_of(template=template))
    return replace(sign, value=f"{sign.value}.{template.made:d}")


def event_sign(name: str) -> Sign:
    """Changes when anything moves from one phase to another."""
    return Sign(name, activity.signature(), name)


def list_signs(name: str, rows: QuerySet[Any], *, moving: bool = True) -> list[Sign]:
    """What tells that a list is another one; ``moving`` where a row that moves to another phase may change it."""
    return listing.list_signs(name, rows, **({"moved": activity.last_event()} if moving else {}))


def provider_sign(provider: Provider) -> Sign:
    """Changes with each check of it, and with its settings."""
    name = f"provider-{provider.pk}"
    return Sign(name, str(provider.revision), name)


def provider_events(pk: int) -> QuerySet[Event]:
    return Event.objects.filter(provider=pk).select_related("template")


def provider_events_sign(pk: int) -> Sign:
    """Changes when anything moves on this provider."""
    name = f"provider-events-{pk}"
    last = provider_events(pk).values_list("pk", flat=True).first()
    return Sign(name, str(last or 0), name)


def kind_of(row: Any) -> str:
    return KINDS.get(row._meta.model_name, row._meta.model_name)


def _templates_frame(v: int, wanted: Wanted, pk: int) -> Frame:
    html = _template_parts(v, loaded(_of(wanted)), LIST_CELLS)
    html += "".join(_sign(v, sign) for sign in list_signs("templates", Template.objects.all()))
    return Frame(html, _vanished(wanted))


def _template_frame(v: int, wanted: Wanted, pk: int) -> Frame:
    templates = loaded(Template.objects.filter(pk=pk))
    ours = targets_of(template=pk)
    html = _template_parts(v, templates) + _target_parts(v, _changed_targets(wanted, ours))
    html += _guest_parts(v, wanted.get("guest", ()))
    html += "".join(_sign(v, targets_sign(each)) for each in templates)
    html += _sign(v, event_sign("template"))
    return Frame(html, refresh=not templates)


def _providers_frame(v: int, wanted: Wanted, pk: int) -> Frame:
    html = provider_parts(v, wanted.get("provider", ()))
    html += "".join(_sign(v, sign) for sign in order_signs().values())
    return Frame(html + _sign(v, list_sign("providers", Provider.objects.all())))


def _provider_frame(v: int, wanted: Wanted, pk: int) -> Frame:
    html = (
        provider_parts(v, [pk])
        + _target_parts(v, _changed_targets(wanted, targets_of(provider=pk)))
        + _guest_parts(v, wanted.get("guest", ()))
    )
    html += "".join(_sign(v, provider_sign(row)) for row in Provider.objects.filter(pk=pk))
    html += _sign(v, provider_events_sign(pk))
    html += _sign(v, list_sign(f"provider-targets-{pk}", targets_of(provider=pk)))
    return Frame(html + _sign(v, list_sign(f"provider-guests-{pk}", guests_of(provider=pk))))


def _guests_frame(v: int, wanted: Wanted, pk: int) -> Frame:
    html = _guest_parts(v, wanted.get("guest", ()))
    return Frame(html + "".join(_sign(v, sign) for sign in list_signs("guests", GuestVM.objects.all())))


def _activity_frame(v: int, wanted: Wanted, pk: int) -> Frame:
    return Frame(_task_parts(v, wanted) + _sign(v, event_sign("activity")))


def _chrome_frame(v: int, wanted: Wanted, pk: int) -> Frame:
    chrome = Chrome.now()
    html = "".join(_render("rasweb/sidebar.html#badge", v, badge=badge) for badge in chrome.badges)
    html += _render("rasweb/dock.html#summary", v, chrome=chrome)
    return Frame(html + _task_parts(v, wanted, at="dock-") + _sign(v, event_sign("dock")))


FRAMES: dict[str, Callable[[int, Wanted, int], Frame]] = {
    "templates": _templates_frame,
    "template": _template_frame,
    "providers": _providers_frame,
    "provider": _provider_frame,
    "guests": _guests_frame,
    "activity": _activity_frame,
    "chrome": _chrome_frame,
}


def _by_kind(keys: set[Key]) -> dict[str, set[int]]:
    kinds: dict[str, set[int]] = defaultdict(set)
    for kind, pk in keys:
        kinds[KINDS.get(kind, kind)].add(pk)
    return kinds


def _of(wanted: Wanted) -> QuerySet[Template]:
    """The templates that these rows belong to."""
    return Template.objects.filter(
        Q(pk__in=wanted.get("template", ()))
        | Q(pk__in=DistributionTarget.objects.filter(pk__in=wanted.get("target", ())).values("template"))
        | Q(
            pk__in=DistributionTarget.objects.filter(provider__in=wanted.get("provider", ())).values(
                "template"
            )
        )
        | Q(pk__in=GuestVM.objects.filter(pk__in=wanted.get("guest", ())).values("template"))
        | Q(pk__in=RecreateRun.objects.filter(pk__in=wanted.get("run", ())).values("template"))
    )


def _changed_targets(wanted: Wanted, ours: QuerySet[DistributionTarget]) -> set[int]:
    """The targets that changed, and those of ``ours`` that look different since their provider did."""
    beside = ours.filter(provider__in=wanted.get("provider", ())).values_list("pk", flat=True)
    return {*wanted.get("target", ()), *beside}


def _vanished(wanted: Wanted) -> bool:
    """Whether a row is gone, so that nobody knows any more which template showed it."""
    models: tuple[tuple[str, Any], ...] = (("target", DistributionTarget), ("guest", GuestVM))
    return any(
        model.objects.filter(pk__in=wanted[kind]).count() < len(wanted[kind])
        for kind, model in models
        if kind in wanted
    )


def _template_parts(v: int, templates: Iterable[Template], cells: Iterable[str] = TEMPLATE_CELLS) -> str:
    return "".join(
        _part(
            f"template-{cell}",
            v,
            template=template,
            distribution=template.distribution,
            run=template.live_run,
        )
        for template in templates
        for cell in cells
    )


def _target_parts(v: int, pks: Iterable[int]) -> str:
    rows = targets_of(pk__in=pks) if pks else ()
    return "".join(_part(f"target-{cell}", v, target=row) for row in rows for cell in TARGET_CELLS)


def _guest_parts(v: int, pks: Iterable[int]) -> str:
    rows = guests_of(pk__in=pks) if pks else ()
    return "".join(_part(f"guest-{cell}", v, guest=row) for row in rows for cell in GUEST_CELLS)


def _task_parts(v: int, wanted: Wanted, at: str = "") -> str:
    html = "".join(
        _part("target-progress", v, target=row, at=at) for row in targets_of(pk__in=wanted.get("target", ()))
    )
    html += "".join(
        _part("guest-state", v, guest=row, at=at) for row in guests_of(pk__in=wanted.get("guest", ()))
    )
    runs = RecreateRun.objects.filter(pk__in=wanted.get("run", ())).select_related("template")
    html += "".join(_part("run-line", v, run=row, at=at) for row in runs)
    working = Template.objects.filter(pk__in=wanted.get("template", ()))
    return html + "".join(_part("template-work", v, template=row, at=at) for row in working)


def _sign(v: int, sign: Sign) -> str:
    return _render("rasweb/parts.html#sign", v, sign=sign)


def _part(name: str, v: int, /, **context: Any) -> str:
    return _render(f"templates_app/parts.html#{name}", v, **context)


def _render(part: str, v: int, /, **context: Any) -> str:
    return render_to_string(part, {"v": v, **context})
