"""Thin views: read the request, call one verb, answer with the fresh parts."""

from __future__ import annotations

from django.http import HttpRequest


def who(request: HttpRequest) -> str:
    """The name that orders are recorded under."""
    return request.user.get_username()


def chosen(request: HttpRequest) -> list[int]:
    """The primary keys of a selection."""
    return [int(pk) for pk in request.GET.getlist("pk")[:1000] if pk.isdecimal() and len(pk) < 19]
