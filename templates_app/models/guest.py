"""Guest VMs made from templates, and orders to recreate them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from django.db import models
from django.db.models import Q
from django.utils.translation import gettext_lazy as _

from providers_app.drivers.base import Mark
from providers_app.models import NAME, Installation, Provider
from templates_app import states
from templates_app.models.template import Template, TemplateVersion
from templates_app.models.work import Work
from templates_app.states import GuestPhase, RunPhase

if TYPE_CHECKING:
    from django.db.models.fields.related_descriptors import RelatedManager

LIVE_RUNS = (RunPhase.ASKED, RunPhase.VERIFYING, RunPhase.BLOCKED, RunPhase.RUNNING, RunPhase.DEFERRED)


class Power(models.TextChoices):
    ON = "on", _("On")
    OFF = "off", _("Off")
    UNKNOWN = "unknown", _("Unknown")


class GuestVM(Work):
    """A clone of one version of a template, on its own provider. ``wanted_power`` is an order not yet carried out."""

    moves = states.GUEST_MOVES

    phase = models.CharField(_("state"), max_length=16, choices=GuestPhase, default=GuestPhase.CREATING)
    name = models.CharField(max_length=63, validators=[NAME])
    template = models.ForeignKey(Template, on_delete=models.PROTECT, related_name="guests")
    provider = models.ForeignKey(Provider, on_delete=models.PROTECT, related_name="guests")
    version = models.ForeignKey(TemplateVersion, on_delete=models.PROTECT, related_name="guests")
    wanted_version = models.ForeignKey(
        TemplateVersion, null=True, on_delete=models.PROTECT, related_name="+", editable=False
    )
    power = models.CharField(max_length=8, choices=Power, default=Power.UNKNOWN)
    wanted_power = models.CharField(max_length=8, choices=Power, blank=True)
    ref = models.TextField(blank=True, editable=False)
    failed_at = models.DateTimeField(null=True, editable=False)

    class Meta:
        ordering = ["template__name", "name"]
        verbose_name = _("guest VM")
        verbose_name_plural = _("guest VMs")
        constraints = [
            models.UniqueConstraint(fields=["provider", "name"], name="guest_name_once"),
            models.CheckConstraint(condition=Q(phase__in=GuestPhase.values), name="guest_phase_known"),
        ]

    def __str__(self) -> str:
        return self.name

    @property
    def outdated(self) -> bool:
        return self.version_id != self.template.current_version_id

    @property
    def mark(self) -> Mark:
        return Mark(installation=Installation.key(), kind="guest", owner=str(self.pk))

    def topics(self) -> Sequence[str]:
        return (
            "guests",
            f"template:{self.template_id}",
            "templates",
            "activity",
            "chrome",
            f"provider:{self.provider_id}",
        )

    def recover(self) -> bool:
        """A lost worker: all verbs on guests finish what was begun, so the next worker does it again."""
        return self.release(self.phase, note="Taken over from a worker that ended.")


class RecreateRun(Work):
    """One order to recreate a template's guests. ``silent`` names the providers that did not answer."""

    QUESTION = (
        "All guest VMs must be recreated because the template has been modified. "
        "Do you want to recreate them now?"
    )
    moves = states.RUN_MOVES

    phase = models.CharField(_("state"), max_length=32, choices=RunPhase, default=RunPhase.ASKED)
    template = models.ForeignKey(Template, on_delete=models.CASCADE, related_name="runs")
    version = models.ForeignKey(TemplateVersion, on_delete=models.CASCADE, related_name="+")
    only_responding = models.BooleanField(default=False)
    silent = models.JSONField(default=list)

    items: RelatedManager[RecreateItem]

    class Meta:
        ordering = ["-id"]
        constraints = [
            models.CheckConstraint(condition=Q(phase__in=RunPhase.values), name="run_phase_known"),
            models.UniqueConstraint(
                fields=["template"],
                condition=Q(phase__in=[str(phase) for phase in LIVE_RUNS]),
                name="one_live_run",
            ),
        ]

    def __str__(self) -> str:
        return f"Recreation of {self.template}"

    def topics(self) -> Sequence[str]:
        return ("guests", f"template:{self.template_id}", "templates", "activity", "chrome")

    def recover(self) -> bool:
        return self.release(self.phase, note="Taken over from a worker that ended.")


class ItemPhase(models.TextChoices):
    TODO = "todo", _("To do")
    RUNNING = "running", _("Recreating")
    DONE = "done", _("Done")
    FAILED = "failed", _("Failed")
    SKIPPED = "skipped", _("Skipped")


class RecreateItem(models.Model):
    """One guest of a recreation."""

    run = models.ForeignKey(RecreateRun, on_delete=models.CASCADE, related_name="items")
    guest = models.ForeignKey(GuestVM, null=True, on_delete=models.SET_NULL, related_name="items")
    guest_name = models.CharField(max_length=63)
    phase = models.CharField(max_length=8, choices=ItemPhase, default=ItemPhase.TODO)
    text = models.TextField(blank=True)

    class Meta:
        ordering = ["guest_name"]
        constraints = [models.UniqueConstraint(fields=["run", "guest"], name="guest_once_in_a_run")]

    def __str__(self) -> str:
        return f"{self.guest_name}: {self.phase}"
