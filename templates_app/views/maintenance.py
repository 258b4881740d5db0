"""Entering and leaving maintenance, and what becomes of the guest VMs."""

from __future__ import annotations

from collections.abc import Callable

from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404
from django.utils.translation import gettext as _

from rasweb.answers import acted, answer, dialog
from rasweb.refusals import Refusal
from templates_app import maintenance as orders
from templates_app import pages, recreation, workingcopy
from templates_app.models import RecreateRun, Template
from templates_app.states import COPYING_PHASES, RunPhase
from templates_app.views import chosen, who


def enter(request: HttpRequest, pk: int) -> HttpResponse:
    return _enter(request, [get_object_or_404(Template, pk=pk)])


def enter_selected(request: HttpRequest) -> HttpResponse:
    return _enter(request, list(Template.objects.filter(pk__in=chosen(request))))


def _enter(request: HttpRequest, rows: list[Template]) -> HttpResponse:
    copying = [row for row in rows if row.targets.filter(phase__in=COPYING_PHASES).exists()]
    context = {"templates": rows, "copying": copying, "path": request.get_full_path()}
    if request.method != "POST":
        return dialog(request, "templates_app/enter.html", **context)
    refusals = _each(rows, lambda row: orders.enter(row, who(request)))
    if refusals:
        return dialog(request, "templates_app/enter.html", refusals=refusals, **context)
    return answer(pages.parts(*rows), _("Maintenance is being entered."), close=True)


def leave(request: HttpRequest, pk: int) -> HttpResponse:
    row = get_object_or_404(Template.objects.select_related("source_provider", "current_version"), pk=pk)
    choice, note = request.POST.get("choice", orders.NEW_VERSION), request.POST.get("note", "")[:500]
    context = {
        "template": row,
        "guests": row.guests.count(),
        "sign": pages.event_sign("template"),
        "choice": choice,
        "note": note,
    }
    if request.method != "POST":
        return dialog(request, "templates_app/leave.html", **context)
    try:
        orders.leave(row, request.POST.get("choice", ""), who(request), note=note)
    except Refusal as refusal:
        if refusal.code == "VM_RUNNING":  # said where it can be shut down
            return dialog(request, "templates_app/leave.html", still_running=True, **context)
        return dialog(request, "templates_app/leave.html", refusal=refusal, **context)
    if context["guests"] and choice == orders.NEW_VERSION:
        return dialog(request, "templates_app/recreate.html", **_question(row))
    return answer(pages.parts(row), _("Maintenance is being left."), close=True)


def shut_down(request: HttpRequest, pk: int) -> HttpResponse:
    return _stop(request, pk, _("The working copy is asked to shut down."), force=False)


def power_off(request: HttpRequest, pk: int) -> HttpResponse:
    return _stop(request, pk, _("The working copy is being switched off."), force=True)


def _stop(request: HttpRequest, pk: int, said: str, *, force: bool) -> HttpResponse:
    row = get_object_or_404(Template.objects.select_related("source_provider"), pk=pk)
    return acted(
        lambda: workingcopy.shut_down(row, who(request), force=force), lambda: pages.parts(row), said
    )


def recreate(request: HttpRequest, pk: int) -> HttpResponse:
    """Sealing, then the question, and what came of the answer: verifying, blocked with the names, running."""
    row = get_object_or_404(Template, pk=pk)
    refusal = None
    if request.method == "POST":
        only = request.POST.get("scope") == "responding"
        try:
            recreation.begin(row, who(request), only_responding=only)
        except Refusal as no:
            refusal = no
    return dialog(request, "templates_app/recreate.html", refusal=refusal, **_question(row))


def later(request: HttpRequest, pk: int) -> HttpResponse:
    row = get_object_or_404(Template, pk=pk)
    try:
        recreation.defer(row, who(request))
    except Refusal as refusal:
        return dialog(request, "templates_app/recreate.html", refusal=refusal, **_question(row))
    said = _("The guest VMs stay as they are. Recreate them later from the Tasks menu.")
    return answer(pages.parts(row), said, close=True)


def recreate_selected(request: HttpRequest) -> HttpResponse:
    rows = [row for row in Template.objects.filter(pk__in=chosen(request)) if recreation.outdated(row)]
    counts = [(row, recreation.outdated(row)) for row in rows]
    context = {
        "counts": counts,
        "total": sum(number for _row, number in counts),
        "path": request.get_full_path(),
    }
    if request.method != "POST":
        return dialog(request, "templates_app/recreate_many.html", **context)
    refusals = _each(rows, lambda row: recreation.begin(row, who(request)))
    if refusals:
        return dialog(request, "templates_app/recreate_many.html", refusals=refusals, **context)
    return answer(pages.parts(*rows), _("The providers are being verified first."), close=True)


def _question(row: Template) -> dict[str, object]:
    run = recreation.live_run(row) or RecreateRun.objects.filter(template=row).first()
    number = recreation.outdated(row)
    asking = (
        run is None
        or run.phase in (RunPhase.ASKED, RunPhase.DEFERRED)
        or run.phase not in recreation.LIVE_RUNS
    )
    return {
        "template": row,
        "run": run,
        "outdated": number,
        "question": recreation.QUESTION,
        "asking": asking and number > 0 and not row.in_maintenance,
        "sign": pages.event_sign("template"),
    }


def _each(rows: list[Template], verb: Callable[[Template], object]) -> list[Refusal]:
    """The same order for each row; what was refused."""
    refusals = []
    for row in rows:
        try:
            verb(row)
        except Refusal as refusal:
            refusals.append(refusal)
    return refusals
