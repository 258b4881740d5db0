"""Providers: the list, one provider, its form, and orders about its connection."""

from __future__ import annotations

from django.contrib import messages
from django.db.models import Count, Q
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, render
from django.utils.translation import gettext as _

from providers_app import connections, health
from providers_app import menu as menus
from providers_app.drivers import KINDS
from providers_app.drivers.errors import DriverError
from providers_app.forms import LimitForm, ProviderForm, in_bytes, in_mib, kinds
from providers_app.looks import LOOKS
from providers_app.models import Installation, Provider
from providers_app.parts import order_signs, provider_parts
from providers_app.status import word
from rasweb import access
from rasweb.answers import acted, answer, dialog, go
from rasweb.listing import Listing, Sign, list_sign, listing, query
from rasweb.refusals import Refusal
from rasweb.rows import pk_of
from rasweb.stamps import stamp

SORTS = {
    "name": lambda each: each.name.lower(),
    "kind": lambda each: (each.kind, each.name.lower()),
    "state": lambda each: (word(each), each.name.lower()),
    "seen": lambda each: each.last_seen_at.timestamp() if each.last_seen_at else 0,
    "space": lambda each: -each.free_bytes,
    "templates": lambda each: each.template_count,
    "guests": lambda each: each.guest_count,
}


def providers(request: HttpRequest) -> HttpResponse:
    context = {
        "signs": _signs(request),
        "listing": listed(request),
        "words": list(LOOKS),
    }
    return render(request, "providers_app/list.html", context)


def _signs(request: HttpRequest) -> list[Sign]:
    """What tells that the list which the address asks for is another one."""
    needed = {"state" if request.GET.get("state") else "", request.GET.get("sort", "").removeprefix("-")}
    moved = [sign for name, sign in order_signs().items() if name in needed]
    return [list_sign("providers", Provider.objects.all()), *moved]


def listed(request: HttpRequest) -> Listing:
    text, state = query(request), request.GET.get("state")
    rows = Provider.objects.annotate(
        template_count=Count("targets", distinct=True), guest_count=Count("guests", distinct=True)
    )
    rows = rows.filter(Q(name__icontains=text) | Q(kind__icontains=text)) if text else rows
    found = [each for each in rows if not state or word(each) == state]
    return listing(request, found, SORTS, Provider.objects.count())


def menu(request: HttpRequest) -> HttpResponse:
    key = pk_of(request.GET.get("pk"))
    if key is None:
        raise Http404
    row = one(key)
    items = menus.of_provider(row, access.role(request.user))
    return render(request, "rasweb/menu.html", {"items": items, "title": row.name})


def limits(request: HttpRequest) -> HttpResponse:
    """The limit of all copies together."""
    form = LimitForm(request.POST or None, initial={"bandwidth": in_mib(Installation.bandwidth())})
    if request.method == "POST" and form.is_valid():
        if form.has_changed():
            connections.limit_all(in_bytes(form.cleaned_data["bandwidth"]) or 0)
        return answer(said=_("The limit was changed."), close=True)
    return dialog(request, "providers_app/limits.html", form=form)


def add(request: HttpRequest) -> HttpResponse:
    """The kind is chosen first; it decides which fields there are."""
    kind = request.POST.get("kind") or request.GET.get("kind") or next(iter(KINDS))
    if kind not in KINDS:
        raise Http404
    form = ProviderForm(kind, request.POST or None, typed=request.GET.dict())
    context = {"form": form, "kind": kind, "kinds": kinds()}
    if request.method == "POST" and form.is_valid():
        try:
            row = connections.add(form.cleaned_data["name"], kind, form.values(), limits=form.limits())
        except Refusal as refusal:
            return render(request, "providers_app/form.html", {**context, "refusal": refusal})
        messages.success(request, _("%s was added and is being checked.") % row)
        return go(request, "provider", row.pk)
    return render(request, "providers_app/form.html", context)


def change(request: HttpRequest, pk: int) -> HttpResponse:
    row = one(pk)
    form = ProviderForm(row.kind, request.POST or None, provider=row)
    context = {"form": form, "kind": row.kind, "provider": row}
    if request.method == "POST" and form.is_valid():
        try:
            connections.change(row, form.values(), limits=form.limits(), was=form.cleaned_data["was"])
        except Refusal as refusal:
            return render(request, "providers_app/form.html", {**context, "refusal": refusal})
        messages.success(request, _("%s was changed and is being checked.") % row)
        return go(request, "provider", row.pk)
    return render(request, "providers_app/form.html", context)


def test(request: HttpRequest) -> HttpResponse:
    """Try what stands in the form, saved or not; change nothing."""
    kind = request.POST.get("kind", "")
    if kind not in KINDS:
        raise Http404
    row = Provider.objects.filter(pk=pk_of(request.POST.get("provider")) or 0).first()
    form = ProviderForm(kind, request.POST, provider=row)
    form.fields.pop("name", None)
    context: dict[str, object] = {"form": form}
    if form.is_valid():
        try:
            context["survey"] = connections.test(kind, form.values())
        except Refusal as refusal:
            context["refusal"] = refusal
    return render(request, "providers_app/tested.html", context)


def check(request: HttpRequest, pk: int) -> HttpResponse:
    """Check now, and say what came of it."""
    row = one(pk)

    def verb() -> None:
        found = health.check([row]).get(row.pk)
        if isinstance(found, DriverError):
            raise Refusal(found.text, found.code, found.action)

    return acted(verb, lambda: parts(row), _("%s answers.") % row)


def enable(request: HttpRequest, pk: int) -> HttpResponse:
    row = one(pk)
    return acted(lambda: connections.enable(row, True), lambda: parts(row), _("%s is switched on.") % row)


def disable(request: HttpRequest, pk: int) -> HttpResponse:
    row = one(pk)
    said = _("%s is switched off: no checks, no work.") % row
    return acted(lambda: connections.enable(row, False), lambda: parts(row), said)


def delete(request: HttpRequest, pk: int) -> HttpResponse:
    row = one(pk)
    if request.method == "POST":
        try:
            connections.delete(row)
        except Refusal as refusal:
            return dialog(request, "providers_app/delete.html", provider=row, refusal=refusal)
        messages.success(request, _("%s was deleted.") % row)
        return go(request, "providers")
    return dialog(request, "providers_app/delete.html", provider=row)


def one(pk: int) -> Provider:
    return get_object_or_404(Provider, pk=pk)


def parts(row: Provider) -> str:
    return provider_parts(stamp(), [row.pk])
