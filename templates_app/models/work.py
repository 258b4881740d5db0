"""Rows that workers move: the row is the truth, the UPDATE is the lock."""

from __future__ import annotations

import os
import uuid
from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, Self, cast

from django.db import models, transaction
from django.db.models import Case, F, Q, Value, When
from django.db.models.functions import Cast
from django.utils import timezone

from rasweb import live
from templates_app.models.event import Event
from templates_app.states import Moves

CLOCKS_DIFFER = timedelta(minutes=1)  # at most, of machines that work together


class Work(models.Model):
    """A row with a phase, and at most one worker at a time who may move it.

    Whoever works on a row holds its ``claim``. ``beat`` rises while the worker lives; ``owner`` names its process.
    """

    moves: ClassVar[Moves]
    phase: models.CharField[str, str]

    claim = models.UUIDField(null=True, editable=False)
    owner = models.CharField(max_length=128, blank=True, editable=False)
    beat = models.PositiveBigIntegerField(default=0, editable=False)
    error_code = models.CharField(max_length=32, blank=True, editable=False)
    error_text = models.TextField(blank=True, editable=False)
    error_action = models.TextField(blank=True, editable=False)
    revision = models.PositiveBigIntegerField(default=0, editable=False)
    created_at = models.DateTimeField(auto_now_add=True)
    changed_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        abstract = True

    def advance(self, to: str, note: str = "", by: str = "", **fields: Any) -> bool:
        """Move to phase ``to`` if the row is still as this object saw it; say whether it was.

        Writes the phase and ``fields``, an event and a live hint in one transaction. False: somebody moved it first,
        nothing was written.
        """
        if to not in self.moves[self.phase]:
            raise ValueError(f"{self._meta.model_name} never moves from {self.phase} to {to}")
        before = self.phase
        moved = {
            "phase": to,
            "revision": F("revision") + 1,
            "beat": F("beat") + 1,
            "changed_at": timezone.now(),
        }
        with transaction.atomic():
            if not self.as_seen().update(**moved, **fields):
                return False
            self.refresh_from_db()
            Event.record(self, before, to, by=by or self.owner, note=note)
            self.announce()
        return True

    def take(self, to: str, **fields: Any) -> bool:
        """Claim the row for this process, with a fresh claim id, if nobody holds it."""
        if self.claim is not None:
            return False
        return self.advance(to, claim=uuid.uuid4(), owner=process_name(), **fields)

    def release(self, to: str, note: str = "", **fields: Any) -> bool:
        """Move on and give the claim back."""
        return self.advance(to, note, claim=None, owner="", **fields)

    def report(self, **fields: Any) -> bool:
        """Renew the lease and write progress. False: the claim is lost, stop."""
        alive = type(self)._default_manager.filter(pk=self.pk, claim=self.claim)
        if not alive.update(
            beat=F("beat") + 1, revision=F("revision") + 1, changed_at=timezone.now(), **fields
        ):
            return False
        self.refresh_from_db(
            fields=[field.attname for field in self._meta.concrete_fields if not field.is_relation]
        )
        self.announce()
        return True

    @classmethod
    def report_all(cls, rows: Collection[Self], *names: str) -> list[Self]:
        """The same for many rows that this process holds: writes the fields ``names`` of each as they are set on it.

        Two statements and one live hint, however many rows. Returns those whose claim is lost.
        """
        if not rows:
            return []
        alive = cls._default_manager.filter(claim__in=[row.claim for row in rows]).order_by()
        fields = {name: _each(cls, rows, name) for name in names}
        alive.update(beat=F("beat") + 1, revision=F("revision") + 1, changed_at=timezone.now(), **fields)
        plain = [field.attname for field in cls._meta.concrete_fields if not field.is_relation]
        fresh = {found["pk"]: found for found in alive.values("pk", *plain)}
        kept = [row for row in rows if row.pk in fresh]
        for row in kept:
            for name in plain:
                setattr(row, name, fresh[row.pk][name])
        live.all_changed(cls._meta.model_name or "", {row.pk: row.topics() for row in kept})
        return [row for row in rows if row.pk not in fresh]

    def recover(self) -> bool:
        """Take the row from a worker that is gone, so that another may go on. Each kind of work says how."""
        raise NotImplementedError

    def topics(self) -> Sequence[str]:
        """The pages that show this row."""
        raise NotImplementedError

    def announce(self) -> None:
        live.changed(self._meta.model_name or "", self.pk, *self.topics())

    def as_seen(self) -> models.QuerySet[Self]:
        """The row, if nobody moved it since this object read it."""
        return type(self)._default_manager.filter(pk=self.pk, phase=self.phase, claim=self.claim)


def _each(model: type[Work], rows: Collection[Work], name: str) -> Any:
    """An expression that gives each of the rows its own value of one field."""
    field = cast("models.Field[Any, Any]", model._meta.get_field(name))
    whens = [When(pk=row.pk, then=Value(getattr(row, name), output_field=field)) for row in rows]
    return Cast(Case(*whens, output_field=field), output_field=field)


def older_than(reading: datetime) -> Q:
    """Rows that were last changed before something was read.

    One that was changed well ahead of now was so before the clock was set back, and so before what was read since.
    """
    now = timezone.now()
    before = Q(changed_at__lt=reading)
    return before | Q(changed_at__gt=now + CLOCKS_DIFFER) if reading <= now else before


def no_error() -> dict[str, str]:
    return {"error_code": "", "error_text": "", "error_action": ""}


def error(code: str, text: str, action: str = "") -> dict[str, str]:
    return {"error_code": code, "error_text": text, "error_action": action}


@lru_cache(maxsize=1)
def _here() -> str:
    """Where process numbers mean what they mean to this process: this boot, this container."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{boot}:{os.stat('/proc/self/ns/pid').st_ino}"


def process_name(pid: int | None = None) -> str:
    """Name a process from here so that a later one with the same number is another: where, number, start."""
    number = pid or os.getpid()
    start = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[19]
    return f"{_here()}/{number}/{start}"


def process_is_gone(name: str) -> bool:
    """True only where that is certain: the process was seen from here and runs no more."""
    where, _, rest = name.partition("/")
    number, _, _start = rest.partition("/")
    if where != _here() or not number.isdigit():
        return False
    try:
        return process_name(int(number)) != name
    except OSError:
        return True
