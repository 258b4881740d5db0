"""Thin views: read the request, call one verb, answer with the fresh parts."""

from __future__ import annotations

from django.http import HttpRequest

from rasweb.rows import pks_of


def who(request: HttpRequest) -> str:
    """The name that orders are recorded under."""
    return request.user.get_username()


def chosen(request: HttpRequest) -> list[int]:
    """The primary keys of a selection."""
    return pks_of(request.GET.getlist("pk")[:1000])
