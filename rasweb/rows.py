"""Rows by primary key: keys that anybody can write into addresses and forms, and rows that are looked for often."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Generic, TypeVar

from django import forms
from django.core.exceptions import ValidationError
from django.db import connection
from django.db.models import Model, QuerySet

Row = TypeVar("Row", bound=Model)

LONGEST = 18  # digits that a 64-bit key of any database holds


def pk_of(text: str | None) -> int | None:
    """The key; None for what can not be one."""
    return int(text) if text and text.isdecimal() and len(text) <= LONGEST else None


def pks_of(texts: list[str]) -> list[int]:
    """Those that can be keys, in order."""
    return [key for text in texts if (key := pk_of(text)) is not None]


class standing(Generic[Row]):  # noqa: N801 - written above a function that returns the rows
    """A question that is asked again and again, and most often has no row for an answer.

    Django writes the statement for the keys once, and one for the rest only when there are any: writing takes many
    times as long as answering. So the function must depend on nothing but the database, and on no time.
    """

    def __init__(self, build: Callable[[], QuerySet[Row]]) -> None:
        self._build = build
        self._statements: dict[str, tuple[str, tuple[Any, ...]]] = {}

    def pks(self) -> list[int]:
        with connection.cursor() as cursor:
            cursor.execute(*self._statement())
            return [key for (key,) in cursor.fetchall()]

    def __call__(self) -> Iterable[Row]:
        keys = self.pks()
        return self._build().filter(pk__in=keys) if keys else ()

    def _statement(self) -> tuple[str, tuple[Any, ...]]:
        if connection.vendor not in self._statements:
            keys = self._build().order_by().values_list("pk", flat=True)
            self._statements[connection.vendor] = keys.query.sql_with_params()
        return self._statements[connection.vendor]


class RowsField(forms.ModelMultipleChoiceField):
    """A choice of rows; a number that no database holds is no valid choice either."""

    def clean(self, value: Any) -> Any:
        if value and len(pks_of(value)) < len(value):
            raise ValidationError(self.error_messages["invalid_list"], code="invalid_list")
        return super().clean(value)
