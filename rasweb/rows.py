"""Primary keys that stand in addresses and forms, where anybody can write anything."""

from __future__ import annotations

from typing import Any

from django import forms
from django.core.exceptions import ValidationError

LONGEST = 18  # digits that a 64-bit key of any database holds


def pk_of(text: str | None) -> int | None:
    """The key; None for what can not be one."""
    return int(text) if text and text.isdecimal() and len(text) <= LONGEST else None


def pks_of(texts: list[str]) -> list[int]:
    """Those that can be keys, in order."""
    return [key for text in texts if (key := pk_of(text)) is not None]


class RowsField(forms.ModelMultipleChoiceField):
    """A choice of rows; a number that no database holds is no valid choice either."""

    def clean(self, value: Any) -> Any:
        if value and len(pks_of(value)) < len(value):
            raise ValidationError(self.error_messages["invalid_list"], code="invalid_list")
        return super().clean(value)
