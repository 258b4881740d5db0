"""The list of templates, one template, and orders about its distribution."""

from __future__ import annotations

from django.db.models import Q
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, render
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from providers_app.models import Provider
from rasweb import access
from rasweb.answers import Parts, acted, answer, dialog
from rasweb.listing import Listing, head, listing, moves, query
from rasweb.refusals import Refusal
from templates_app import creation, pages
from templates_app import distribution as orders
from templates_app import menu as menus
from templates_app.forms import PropertiesForm
from templates_app.models import DistributionTarget, Template, TemplateVersion
from templates_app.states import NOT_MULTI_PROVIDER, REMOVING_AND_ADDING, Phase, TemplatePhase, Word
from templates_app.views import chosen, who

GUESTS_NAMED, PROVIDERS_NAMED = 20, 5
SORTS = {
    "name": lambda each: each.name.lower(),
    "status": lambda each: each.get_phase_display(),
    "distribution": lambda each: each.distribution.key,
    "guests": lambda each: each.guest_count,
    "version": lambda each: each.current_version.number if each.current_version else 0,
    "changed": lambda each: each.changed_at,
}


def templates(request: HttpRequest) -> HttpResponse:
    words = [*Word.values, REMOVING_AND_ADDING, NOT_MULTI_PROVIDER]
    moving = moves(request, "distribution", "status")
    context = {
        "signs": pages.list_signs("templates", Template.objects.all(), moving=moving),
        "listing": listed(request),
        "words": words,
        "statuses": TemplatePhase.choices,
    }
    return render(request, "templates_app/list.html", context)


def listed(request: HttpRequest) -> Listing:
    """The templates that the address asks for."""
    text, word, status = query(request), request.GET.get("distribution"), request.GET.get("status")
    rows = (
        Template.objects.filter(Q(name__icontains=text) | Q(source_vm__icontains=text))
        if text
        else Template.objects.all()
    )
    rows = rows.filter(phase=status) if status else rows
    found = [each for each in pages.loaded(rows) if not word or each.distribution.key == word]
    return listing(request, found, SORTS, Template.objects.count())


def template(request: HttpRequest, pk: int) -> HttpResponse:
    event_sign = pages.event_sign("template")
    row = one(pk)
    context = {
        "event_sign": event_sign,
        "targets_sign": pages.targets_sign(row),
        "template": row,
        "distribution": row.distribution,
        "targets": pages.shown_targets(row, request.GET.get("page", "1")),
        "run": row.live_run,
        "versions": versions(row),
        "guests": head(pages.guests_of(template=row), pages.GUESTS_SHOWN),
        "events": head(row.events.select_related("provider"), pages.EVENTS_SHOWN),
    }
    return render(request, "templates_app/template.html", context)


def menu(request: HttpRequest) -> HttpResponse:
    """The menu of a row, or of the selection."""
    rows = pages.loaded(selection(request))
    items = menus.of_templates(rows, access.role(request.user))
    title = rows[0].name if len(rows) == 1 else _("%d templates") % len(rows) if rows else ""
    return render(request, "rasweb/menu.html", {"items": items, "title": title})


def selection(request: HttpRequest):  # type: ignore[no-untyped-def]  # a query set of templates
    """The ticked rows, or all that match the filter where that was ticked."""
    if request.GET.get("every"):
        return Template.objects.filter(pk__in=[each.pk for each in listed(request).rows])
    return Template.objects.filter(pk__in=chosen(request))


def properties(request: HttpRequest, pk: int) -> HttpResponse:
    row = one(pk)
    form = PropertiesForm(row, request.POST or None)
    context = {"template": row, "form": form, "versions": versions(row)}
    if request.method == "POST" and form.is_valid() and not form.asks:
        try:
            form.apply(who(request))
        except Refusal as refusal:
            fresh = PropertiesForm(one(pk)) if refusal.code == "CONFLICT" else form
            return dialog(
                request, "templates_app/properties.html", refusal=refusal, **{**context, "form": fresh}
            )
        return answer(pages.parts(row), _("The distribution list of %s was changed.") % row, close=True)
    return dialog(request, "templates_app/properties.html", **context)


def distribution(request: HttpRequest, pk: int) -> HttpResponse:
    row = one(pk)
    return dialog(
        request,
        "templates_app/distribution.html",
        template=row,
        targets=pages.shown_targets(row),
        distribution=row.distribution,
        sign=pages.targets_sign(row),
    )


def retry_failed(request: HttpRequest, pk: int) -> HttpResponse:
    row = one(pk)
    return retried(request, [row], lambda: all_parts(row))


def retry_selected(request: HttpRequest) -> HttpResponse:
    rows = list(Template.objects.filter(pk__in=chosen(request)))
    return retried(request, rows, lambda: pages.parts(*rows))


def retried(request: HttpRequest, rows: list[Template], parts: Parts) -> HttpResponse:
    """Retry all that failed, and say how many that were and which providers were left out since they are away."""
    try:
        tried = sum(orders.retry_failed(row, who(request)) for row in rows)
    except Refusal as refusal:
        return answer(parts(), str(refusal), good=False)
    said = _("Nothing is tried again.")
    if tried:
        said = ngettext("%d task is tried again.", "%d tasks are tried again.", tried) % tried
    away = left_out(rows)
    return answer(parts(), f"{said} {away}".strip(), good=not away)


def left_out(rows: list[Template]) -> str:
    """A sentence about the providers whose failed work can not be tried now."""
    rest = DistributionTarget.objects.filter(template__in=rows, phase=Phase.FAILED)
    away = rest.exclude(provider__in=Provider.objects.available()).order_by("provider__name")
    names = list(dict.fromkeys(away.values_list("provider__name", flat=True)))
    text = ", ".join(names[:PROVIDERS_NAMED]) + (" …" if len(names) > PROVIDERS_NAMED else "")
    return _("Not available: %s. Check these providers, then retry.") % text if names else ""


def delete(request: HttpRequest, pk: int) -> HttpResponse:
    row, refusal = one(pk), None
    if request.method == "POST":
        try:
            orders.delete(row, who(request))
            return answer(all_parts(row), _("%s is being deleted.") % row, close=True)
        except Refusal as no:
            refusal = no
    held, guests = pages.targets_of(template=pk), head(pages.guests_of(template=pk), GUESTS_NAMED)
    context = {"template": row, "targets": held, "guests": guests, "refusal": refusal}
    return dialog(request, "templates_app/delete.html", **context)


def create_again(request: HttpRequest, pk: int) -> HttpResponse:
    row = one(pk)
    said = _("%s is created again.") % row
    return acted(lambda: creation.retry(row, who(request)), lambda: pages.parts(row), said)


def make_current(request: HttpRequest, pk: int) -> HttpResponse:
    version = get_object_or_404(TemplateVersion.objects.select_related("template"), pk=pk)
    said = _("Version %d is the current one.") % version.number
    return acted(
        lambda: orders.make_current(version, who(request)), lambda: all_parts(version.template), said
    )


def target_retry(request: HttpRequest, pk: int) -> HttpResponse:
    row = target(pk)
    return acted(
        lambda: orders.retry(row, who(request)),
        lambda: pages.parts(row),
        _("%s is tried again.") % row.provider,
    )


def target_cancel(request: HttpRequest, pk: int) -> HttpResponse:
    row = target(pk)
    return acted(
        lambda: orders.cancel(row, who(request)),
        lambda: pages.parts(row),
        _("%s is being stopped.") % row.provider,
    )


def target_force(request: HttpRequest, pk: int) -> HttpResponse:
    row = target(pk)
    return acted(
        lambda: orders.force_removal(row, who(request)), lambda: pages.parts(row), _("The removal goes on.")
    )


def one(pk: int) -> Template:
    """A template with what its cells need, or 404."""
    get_object_or_404(Template, pk=pk)
    return pages.loaded(Template.objects.filter(pk=pk))[0]


def all_parts(row: Template) -> str:
    return pages.parts(row, *DistributionTarget.objects.filter(template=row.pk))


def target(pk: int) -> DistributionTarget:
    return get_object_or_404(pages.targets_of(), pk=pk)


def versions(row: Template) -> list[tuple[TemplateVersion, list[str], int]]:
    """Each version, the providers that hold it, and how many guests are made of it."""
    held = {
        version.pk: version
        for version in row.versions.prefetch_related("published__target__provider", "guests")
    }
    return [
        (
            version,
            sorted({image.target.provider.name for image in version.published.all() if not image.spoilt}),
            version.guests.count(),
        )
        for version in held.values()
    ]
