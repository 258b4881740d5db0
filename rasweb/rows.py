"""Rows by primary key: keys that anybody can write into addresses and forms, and rows that are looked for often."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeVar

from django import forms
from django.core.exceptions import ValidationError
from django.db.models import Model, QuerySet

Row = TypeVar("Row", bound=Model)

LONGEST = 18  # digits that a 64-bit key of any database holds


def pk_of(text: str | None) -> int | None:
    """The key; None for what can not be one."""
    return int(text) if text and text.isdecimal() and len(text) <= LONGEST else None


def pks_of(texts: list[str]) -> list[int]:
    """Those that can be keys, in order."""
    return [key for text in texts if (key := pk_of(text)) is not None]


def seldom(rows: QuerySet[Row]) -> Iterable[Row]:
    """The rows of a question that is asked again and again, and most often has none for an answer.

    Only keys are asked for first: to name all the columns of a row and of its relations takes several times as long as
    all the rest of the question.
    """
    keys = list(rows.order_by().values_list("pk", flat=True))
    return rows.filter(pk__in=keys) if keys else ()


class RowsField(forms.ModelMultipleChoiceField):
    """A choice of rows; a number that no database holds is no valid choice either."""

    def clean(self, value: Any) -> Any:
        if value and len(pks_of(value)) < len(value):
            raise ValidationError(self.error_messages["invalid_list"], code="invalid_list")
        return super().clean(value)
