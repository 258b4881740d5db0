"""Guest VMs: the list, creating them, and orders to one or many."""

from __future__ import annotations

from collections.abc import Callable

from django.db.models import F, Q
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, render
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from rasweb import access
from rasweb.answers import acted, answer, dialog
from rasweb.listing import Listing, listing, moves, query
from rasweb.refusals import Refusal
from rasweb.rows import pk_of
from templates_app import guests as orders
from templates_app import menu as menus
from templates_app import pages
from templates_app.forms import GuestsForm
from templates_app.models import GuestVM, Template
from templates_app.states import GuestPhase
from templates_app.views import chosen, who

SORTS = {
    "name": lambda each: each.name.lower(),
    "template": lambda each: (each.template.name.lower(), each.name.lower()),
    "provider": lambda each: (each.provider.name.lower(), each.name.lower()),
    "state": lambda each: (each.get_phase_display(), each.name.lower()),
    "version": lambda each: each.version.number,
    "changed": lambda each: each.changed_at,
}

ORDERS: dict[str, Callable[[GuestVM, str], object]] = {
    "stop": lambda row, by: orders.switch(row, False, by),
    "recreate": orders.recreate,
    "delete": orders.delete,
}


def guests(request: HttpRequest) -> HttpResponse:
    context = {
        "signs": pages.list_signs("guests", GuestVM.objects.all(), moving=moves(request, "state")),
        "listing": listed(request),
        "states": GuestPhase.choices,
        "template_names": Template.objects.values_list("pk", "name"),
    }
    return render(request, "templates_app/guests.html", context)


def listed(request: HttpRequest) -> Listing:
    text, phase, template = query(request), request.GET.get("state", ""), pk_of(request.GET.get("template"))
    rows = pages.guests_of()
    if text:
        rows = rows.filter(
            Q(name__icontains=text) | Q(template__name__icontains=text) | Q(provider__name__icontains=text)
        )
    if phase == "outdated":
        rows = rows.exclude(version=F("template__current_version"))
    elif phase:
        rows = rows.filter(phase=phase)
    if template is not None:
        rows = rows.filter(template=template)
    return listing(request, rows, SORTS, GuestVM.objects.count())


def menu(request: HttpRequest) -> HttpResponse:
    rows = selection(request)
    title = rows[0].name if len(rows) == 1 else _("%d guest VMs") % len(rows) if rows else ""
    items = menus.of_guests(rows, access.role(request.user))
    return render(request, "rasweb/menu.html", {"items": items, "title": title})


def selection(request: HttpRequest) -> list[GuestVM]:
    return listed(request).rows if request.GET.get("every") else list(pages.guests_of(pk__in=chosen(request)))


def create(request: HttpRequest, pk: int) -> HttpResponse:
    template = get_object_or_404(Template, pk=pk)
    form = GuestsForm(template, request.POST or None)
    context = {"template": template, "form": form}
    if request.method == "POST" and form.is_valid():
        data = form.cleaned_data
        try:
            made = orders.create(template, data["provider"], data["count"], who(request), data["stem"])
        except Refusal as refusal:
            return dialog(request, "templates_app/guest_new.html", refusal=refusal, **context)
        said = ngettext("%d guest VM is being created.", "%d guest VMs are being created.", len(made)) % len(
            made
        )
        return answer(pages.parts(template), said, close=True)
    return dialog(request, "templates_app/guest_new.html", **context)


def selected(request: HttpRequest, verb: str) -> HttpResponse:
    """One order for each guest of the selection; all but a start ask first, and say the number."""
    rows = list(pages.guests_of(pk__in=chosen(request)))
    if verb == "start":
        return _start(request, rows)
    if verb not in ORDERS:
        raise Http404
    context = {"guests": rows, "verb": verb, "path": request.get_full_path(), "number": len(rows)}
    template = "templates_app/guests_confirm.html"
    if request.method != "POST":
        return dialog(request, template, **context)
    if verb == "delete" and request.POST.get("number") != str(len(rows)):
        return dialog(request, template, wrong=True, **context)
    refusals = _each(rows, verb, who(request))
    if refusals:
        return dialog(request, template, refusals=refusals, **context)
    return answer(pages.parts(*rows), _("Ordered for %d guest VMs.") % len(rows), close=True)


def recreate(request: HttpRequest, pk: int) -> HttpResponse:
    row = one(pk)
    return acted(
        lambda: orders.recreate(row, who(request)),
        lambda: pages.parts(row),
        _("%s is being recreated.") % row,
    )


def delete(request: HttpRequest, pk: int) -> HttpResponse:
    row = one(pk)
    return acted(
        lambda: orders.delete(row, who(request)), lambda: pages.parts(row), _("%s is being deleted.") % row
    )


def power(request: HttpRequest, pk: int, to: str) -> HttpResponse:
    row, on = one(pk), to == "on"
    said = _("%s is being started.") if on else _("%s is being stopped.")
    return acted(lambda: orders.switch(row, on, who(request)), lambda: pages.parts(row), said % row)


def one(pk: int) -> GuestVM:
    return get_object_or_404(pages.guests_of(), pk=pk)


def _start(request: HttpRequest, rows: list[GuestVM]) -> HttpResponse:
    def verb() -> None:
        for row in rows:
            orders.switch(row, True, who(request))

    return acted(verb, lambda: pages.parts(*rows), _("Start is ordered."))


def _each(rows: list[GuestVM], verb: str, by: str) -> list[Refusal]:
    """The same order for each row; what was refused."""
    refusals = []
    for row in rows:
        try:
            ORDERS[verb](row, by)
        except Refusal as refusal:
            refusals.append(refusal)
    return refusals
