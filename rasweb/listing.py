"""Lists: filter, sort and page are in the address, so that a list can be bookmarked, shared and refreshed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from zlib import crc32

from django.core.paginator import Page, Paginator
from django.db.models import Count, Max, QuerySet, Subquery
from django.http import HttpRequest

PER_PAGE = 50


@dataclass(frozen=True)
class Sign:
    """Tells a page that a list changed: it hears ``event`` when ``value`` is another than it was.

    It is read before the list: what changes in between is read twice then, and never missed.
    """

    key: str
    value: str
    event: str


def list_sign(name: str, rows: QuerySet[Any]) -> Sign:
    """Changes when a row is made or deleted."""
    return list_signs(name, rows)[0]


def list_signs(name: str, rows: QuerySet[Any], **latest: QuerySet[Any]) -> list[Sign]:
    """The same, and a sign ``name-key`` for each other question ``key`` that has one number for an answer."""
    others = {key: Max(Subquery(question)) for key, question in latest.items()}
    seen = rows.order_by().aggregate(count=Count("pk"), last=Max("pk"), **others)
    held = Sign(name, f"{seen['count']}.{seen['last'] or 0}", name)
    return [held, *(Sign(f"{name}-{key}", str(seen[key] or 0), name) for key in latest)]


def facts_sign(key: str, facts: Iterable[Any], event: str) -> Sign:
    """Changes when one of ``facts`` does, or their order."""
    return Sign(key, f"{crc32(repr(list(facts)).encode()):08x}", event)


def moves(request: HttpRequest, *filters: str) -> bool:
    """Whether rows of the list that the address asks for come, go or change places while they stay what they are."""
    sorts = request.GET.get("sort", "").removeprefix("-") not in ("", "name")
    return sorts or any(request.GET.get(name) for name in filters)


@dataclass(frozen=True)
class Listing:
    """``rows`` are all that match, in order; ``total`` is how many there are without any filter."""

    rows: list[Any]
    total: int
    sort: str
    query: str
    number: str

    @cached_property
    def page(self) -> Page[Any]:
        return Paginator(self.rows, PER_PAGE).get_page(self.number)

    @property
    def filtered(self) -> bool:
        return len(self.rows) < self.total


@dataclass(frozen=True)
class Head:
    """The first rows of many, for a page that is about something else; ``more`` are left out."""

    rows: Sequence[Any]
    more: int

    def __iter__(self) -> Iterator[Any]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)


def head(rows: QuerySet[Any], most: int) -> Head:
    first = list(rows[:most])
    return Head(first, rows.count() - most if len(first) == most else 0)


def listing(
    request: HttpRequest, rows: Iterable[Any], sorts: Mapping[str, Callable[[Any], Any]], total: int
) -> Listing:
    """Order ``rows`` by one of ``sorts``: ``?sort=name`` up, ``?sort=-name`` down; the first one unless told."""
    sort = request.GET.get("sort", "")
    key = sort.removeprefix("-")
    if key not in sorts:
        sort = key = next(iter(sorts))
    ordered = sorted(rows, key=sorts[key], reverse=sort.startswith("-"))
    return Listing(ordered, total, sort, query(request), request.GET.get("page", "1"))


def query(request: HttpRequest) -> str:
    """What was typed into the filter."""
    return request.GET.get("q", "").strip()[:100]
