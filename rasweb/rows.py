"""Rows by primary key: keys that anybody can write into addresses and forms, and rows that are looked for often."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Any, Generic, TypeVar

from django import forms
from django.core.exceptions import ValidationError
from django.db import connection
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import Model, QuerySet, Value
from django.db.models.sql.compiler import SQLCompiler

Row = TypeVar("Row", bound=Model)

LONGEST = 18  # digits that a 64-bit key of any database holds


def pk_of(text: str | None) -> int | None:
    """The key; None for what can not be one."""
    return int(text) if text and text.isdecimal() and len(text) <= LONGEST else None


def pks_of(texts: list[str]) -> list[int]:
    """Those that can be keys, in order."""
    return [key for text in texts if (key := pk_of(text)) is not None]


class _Given(Value):
    """The place in a statement of a value that is given with each question."""

    def as_sql(self, compiler: SQLCompiler, connection: BaseDatabaseWrapper) -> tuple[str, tuple[Any, ...]]:
        return "%s", (self,)


class standing(Generic[Row]):  # noqa: N801 - written above a function that returns the rows
    """A question that is asked again and again, and most often has no row for an answer.

    Django writes the statement for the keys once, and one for the rest only when there are any: writing takes many
    times as long as answering. So the function must depend on nothing but the database and its arguments. These are
    times, named in the question, that are compared with columns.
    """

    def __init__(self, build: Callable[..., QuerySet[Row]]) -> None:
        self._build = build
        self._statements: dict[str, tuple[str, tuple[Any, ...]]] = {}

    def pks(self, **times: datetime) -> list[int]:
        sql, parameters = self._statement(times)
        with connection.cursor() as cursor:
            cursor.execute(sql, [_filled(parameter, times) for parameter in parameters])
            return [key for (key,) in cursor.fetchall()]

    def __call__(self, **times: datetime) -> Iterable[Row]:
        keys = self.pks(**times)
        return self._build(**times).filter(pk__in=keys) if keys else ()

    def _statement(self, times: Iterable[str]) -> tuple[str, tuple[Any, ...]]:
        if connection.vendor not in self._statements:
            rows = self._build(**{name: _Given(name) for name in times})
            keys = rows.order_by().values_list("pk", flat=True)
            self._statements[connection.vendor] = keys.query.sql_with_params()
        return self._statements[connection.vendor]


def _filled(parameter: Any, times: Mapping[str, datetime]) -> Any:
    if isinstance(parameter, _Given):
        return connection.ops.adapt_datetimefield_value(times[parameter.value])
    return parameter


def locked(rows: QuerySet[Row]) -> QuerySet[Row]:
    """These rows, locked until the transaction ends; where the database is one file that holds everything else too.

    Rows that name them by a foreign key may be written meanwhile: history is, by whoever holds another row of the same
    work and would be waited for in turn.
    """
    return rows.select_for_update(of=("self",), no_key=True)


class RowsField(forms.ModelMultipleChoiceField):
    """A choice of rows; a number that no database holds is no valid choice either."""

    def clean(self, value: Any) -> Any:
        if value and len(pks_of(value)) < len(value):
            raise ValidationError(self.error_messages["invalid_list"], code="invalid_list")
        return super().clean(value)
