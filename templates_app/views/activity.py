"""What runs and what ended."""

from __future__ import annotations

from django.core.paginator import Paginator
from django.db.models import Q
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render

from rasweb.listing import PER_PAGE, query
from templates_app import activity as work
from templates_app import pages
from templates_app.chrome import Chrome


def activity(request: HttpRequest) -> HttpResponse:
    sign = pages.event_sign("activity")
    past, text = work.finished(), query(request)
    if text:
        past = past.filter(
            Q(subject__icontains=text)
            | Q(template_name__icontains=text)
            | Q(provider_name__icontains=text)
            | Q(note__icontains=text)
        )
    if request.GET.get("result") == "failed":
        past = past.filter(to_phase__in=work.BAD)
    context = {
        "sign": sign,
        "tasks": work.tasks(),
        "failed": work.failed_targets(),
        "past": Paginator(past, PER_PAGE).get_page(request.GET.get("page")),
    }
    return render(request, "templates_app/activity.html", context)


def dock(request: HttpRequest) -> HttpResponse:
    return render(request, "templates_app/dock.html", {"chrome": Chrome.now()})
