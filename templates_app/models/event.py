"""What happened: append-only, also the timeline on the pages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.db import models
from django.utils import timezone

from providers_app.models import Provider

if TYPE_CHECKING:
    from templates_app.models.work import Work


class Event(models.Model):
    """One move of one row. Names are kept beside the keys, since history outlives its subjects."""

    at = models.DateTimeField(default=timezone.now, db_index=True)
    kind = models.CharField(max_length=32)
    subject = models.CharField(max_length=200)
    subject_id = models.PositiveBigIntegerField()
    template = models.ForeignKey(
        "templates_app.Template", null=True, on_delete=models.SET_NULL, related_name="events"
    )
    template_name = models.CharField(max_length=63, blank=True)
    provider = models.ForeignKey(Provider, null=True, on_delete=models.SET_NULL, related_name="+")
    provider_name = models.CharField(max_length=63, blank=True)
    from_phase = models.CharField(max_length=32, blank=True)
    to_phase = models.CharField(max_length=32)
    by = models.CharField(max_length=150, blank=True)
    code = models.CharField(max_length=32, blank=True)
    note = models.TextField(blank=True)

    class Meta:
        ordering = ["-id"]

    def __str__(self) -> str:
        return f"{self.subject}: {self.from_phase} → {self.to_phase}"

    @classmethod
    def record(cls, row: Work, before: str, after: str, *, by: str = "", note: str = "") -> None:
        """Write down that ``row`` moved. An error on the row is part of the history."""
        template: Any = row if row._meta.model_name == "template" else getattr(row, "template", None)
        provider: Provider | None = getattr(row, "provider", None)
        cls.objects.create(
            kind=row._meta.model_name or "",
            subject=str(row)[:200],
            subject_id=row.pk,
            template=template,
            template_name=template.name if template else "",
            provider=provider,
            provider_name=provider.name if provider else "",
            from_phase=before,
            to_phase=after,
            by=by[:150],
            code=row.error_code,
            note=note or row.error_text,
        )
