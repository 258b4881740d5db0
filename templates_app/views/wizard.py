"""Create template: source VM, clone method, distribution, summary. Nothing is kept between the steps but the page."""

from __future__ import annotations

from django.contrib import messages
from django.http import HttpRequest, HttpResponse, QueryDict
from django.shortcuts import render
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from providers_app.drivers.base import Can
from providers_app.models import Provider
from rasweb.answers import go
from rasweb.refusals import Refusal
from rasweb.rows import pk_of, pks_of
from templates_app import creation
from templates_app.forms import WizardForm, source_choices
from templates_app.views import who

STEPS = list(WizardForm.STEPS)
NAMES = {
    "source": _("Source VM"),
    "clone": _("Clone method"),
    "distribution": _("Distribution"),
    "summary": _("Summary"),
}


def wizard(request: HttpRequest) -> HttpResponse:
    data = request.POST.copy() if request.method == "POST" else _begin(request)
    step, pressed = data.get("step", STEPS[0]), data.get("go", "")
    if step not in STEPS:
        step = STEPS[0]
    moved = _move(data, pressed)
    form = WizardForm(data)
    if request.method == "POST" and pressed in ("next", "finish"):
        faulty = form.faulty_step(until=step)
        if pressed == "finish" and not faulty:
            return _finish(request, form)
        step = faulty or STEPS[min(STEPS.index(step) + 1, len(STEPS) - 1)]
    elif pressed in STEPS:
        step = pressed
        form = WizardForm(data)
    return _show(request, form, step, errors=pressed in ("next", "finish") and not moved)


def _begin(request: HttpRequest) -> QueryDict:
    data = QueryDict(mutable=True)
    for name, value in WizardForm.DEFAULTS.items():
        data[name] = str(value)
    data["source"] = request.GET.get("source", "")
    return data


def _move(data: QueryDict, pressed: str) -> bool:
    """Between the Available list and the Target list."""
    targets = data.getlist("targets")
    moves = {
        "add": lambda: targets + data.getlist("available"),
        "add_all": lambda: [str(pk) for pk in Provider.objects.values_list("pk", flat=True)],
        "remove": lambda: [pk for pk in targets if pk not in data.getlist("chosen")],
        "remove_all": list,
    }
    move = moves.get("add" if pressed == "next" else pressed)  # who is marked and not added yet was meant
    if move:
        data.setlist("targets", list(dict.fromkeys(move())))
    return pressed in moves


def _finish(request: HttpRequest, form: WizardForm) -> HttpResponse:
    try:
        template = creation.create(form.order(), who(request))
    except Refusal as refusal:
        return _show(request, form, "summary", errors=True, refusal=refusal)
    messages.success(request, gettext("%s is being created and then distributed.") % template)
    return go(request, "template", template.pk)


def _show(
    request: HttpRequest, form: WizardForm, step: str, *, errors: bool, refusal: Refusal | None = None
) -> HttpResponse:
    source = form["source"].value() or ""
    provider = Provider.objects.filter(pk=pk_of(source.partition(":")[0]) or 0).first()
    picked = pks_of(form["targets"].value() or [])
    others = Provider.objects.exclude(pk=provider.pk if provider else 0)
    sources, bare = source_choices()
    misnamed = errors and step == "source" and "name" in form.errors  # the field is gone to instead
    context = {
        "form": form,
        "step": step,
        "steps": [(key, NAMES[key]) for key in STEPS],
        "entered": form.data.get("go") in (*STEPS, "next", "finish") and not misnamed,
        "hidden": [name for key in STEPS if key != step for name in WizardForm.STEPS[key]],
        "errors": errors,
        "refusal": refusal,
        "sources": sources,
        "bare": bare,
        "source_provider": provider,
        "source_vm": source.partition(":")[2],
        "can_link": bool(provider and Can.LINKED_CLONE in provider.capabilities),
        "available": others.exclude(pk__in=picked),
        "targets": others.filter(pk__in=picked),
    }
    return render(request, "templates_app/wizard.html", context)
