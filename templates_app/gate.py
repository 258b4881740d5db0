"""The gate that every order for a template passes: one order at a time, none while it is in maintenance."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from django.db import transaction

from rasweb.refusals import Refusal, changed_meanwhile
from rasweb.rows import locked
from templates_app.models import Template

__all__ = ["changed_meanwhile", "order"]


@contextmanager
def order(template: Template) -> Iterator[Template]:
    """A transaction that holds the template's row, yielded as it is now. Nobody is asked over the network inside."""
    with transaction.atomic():
        fresh = locked(Template.objects.filter(pk=template.pk)).first()
        if fresh is None:
            raise Refusal(f"{template} was deleted.", "MISSING", "Look at the list again.")
        if fresh.in_maintenance:
            raise Refusal(
                f"{fresh} is in maintenance; everything else on it is suspended.",
                "MAINTENANCE",
                "Leave maintenance first.",
            )
        yield fresh
