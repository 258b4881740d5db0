"""Templates and their versions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from django.core.validators import MinValueValidator
from django.db import models
from django.db.models import Q
from django.utils.translation import gettext_lazy as _

from providers_app.drivers.base import Definition, Mark
from providers_app.models import NAME, Installation, Provider
from templates_app import states
from templates_app.models.work import Work
from templates_app.states import TemplatePhase

if TYPE_CHECKING:
    from django.db.models.fields.related_descriptors import RelatedManager

    from templates_app.looks import Distribution
    from templates_app.models.guest import GuestVM, RecreateRun
    from templates_app.models.target import DistributionTarget

BUSY = frozenset({TemplatePhase.ENTERING, TemplatePhase.MAINTENANCE, TemplatePhase.EXITING})


class CloneMethod(models.TextChoices):
    FULL = "full", _("Full clone")
    LINKED = "linked", _("Linked clone")


class Template(Work):
    """A golden VM. ``maintenance`` describes the working copy while there is one."""

    moves = states.TEMPLATE_MOVES

    phase = models.CharField(
        _("status"), max_length=16, choices=TemplatePhase, default=TemplatePhase.CREATING
    )
    name = models.CharField(max_length=63, unique=True, validators=[NAME])
    source_provider = models.ForeignKey(Provider, on_delete=models.PROTECT, related_name="source_templates")
    source_vm = models.CharField(max_length=255)
    clone_method = models.CharField(max_length=8, choices=CloneMethod, default=CloneMethod.FULL)
    multi_provider = models.BooleanField(default=True)
    max_concurrent = models.PositiveSmallIntegerField(
        _("number of providers for concurrent distribution"), default=4, validators=[MinValueValidator(1)]
    )
    current_version = models.ForeignKey(
        "TemplateVersion", null=True, on_delete=models.PROTECT, related_name="+", editable=False
    )
    created_by = models.CharField(max_length=150, blank=True, editable=False)
    bytes_done = models.BigIntegerField(default=0, editable=False)
    bytes_total = models.BigIntegerField(default=0, editable=False)
    maintenance = models.JSONField(default=dict, editable=False)

    targets: RelatedManager[DistributionTarget]
    guests: RelatedManager[GuestVM]
    versions: RelatedManager[TemplateVersion]
    runs: RelatedManager[RecreateRun]

    # Only on templates that templates_app.pages has loaded, for lists and parts.
    guest_count: int
    outdated_count: int
    distribution: Distribution
    live_run: RecreateRun | None

    class Meta:
        ordering = ["name"]
        constraints = [
            models.CheckConstraint(condition=Q(phase__in=TemplatePhase.values), name="template_phase_known"),
            models.CheckConstraint(
                condition=Q(current_version__isnull=False)
                | Q(phase__in=["creating", "create_failed", "deleting"]),
                name="template_has_a_version",
            ),
        ]

    def __str__(self) -> str:
        return self.name

    @property
    def made(self) -> bool:
        """Whether there is a version, or one is being made."""
        return self.phase != TemplatePhase.CREATE_FAILED

    @property
    def in_maintenance(self) -> bool:
        return self.phase in BUSY

    @property
    def given_up(self) -> bool:
        """It is to be deleted, but the worker that creates it has yet to see that and to let go of its files."""
        return self.phase == TemplatePhase.DELETING and self.claim is not None

    @property
    def sealed_version(self) -> TemplateVersion:
        """The current version, of a template that was created."""
        if self.current_version is None:
            raise ValueError(f"{self} has no version yet")
        return self.current_version

    @property
    def linked(self) -> bool:
        return self.clone_method == CloneMethod.LINKED

    @property
    def working_copy_name(self) -> str:
        return f"{self.name}-maintenance"

    def topics(self) -> Sequence[str]:
        return ("templates", f"template:{self.pk}", "activity", "chrome")

    def mark(self, kind: str = "image", **fields: Any) -> Mark:
        """The ownership mark of what is made on hosts for this template."""
        return Mark(installation=Installation.key(), kind=kind, owner=str(self.pk), **fields)

    def recover(self) -> bool:
        """A lost worker: entering is undone by another one, everything else begins again."""
        if self.phase == TemplatePhase.ENTERING:
            note = "The worker that prepared the maintenance ended; what it made is removed."
            return self.release(self.phase, note, maintenance={**self.maintenance, "lost": True})
        return self.release(self.phase, note="Taken over from a worker that ended.")


@dataclass(frozen=True)
class DiskVersion:
    """One disk of a sealed version. Sizes in bytes; ``manifest`` names the file of its block manifest."""

    name: str
    format: str
    size: int
    allocated: int
    digest: str
    manifest: str


class TemplateVersion(models.Model):
    """A sealed, immutable state of a template's disks and definition."""

    template = models.ForeignKey(Template, on_delete=models.CASCADE, related_name="versions")
    number = models.PositiveIntegerField()
    note = models.TextField(blank=True)
    disks = models.JSONField(default=list)
    definition = models.JSONField(default=dict)
    created_by = models.CharField(max_length=150, blank=True)
    sealed_at = models.DateTimeField(auto_now_add=True)
    retired_at = models.DateTimeField(null=True)

    class Meta:
        ordering = ["-number"]
        constraints = [models.UniqueConstraint(fields=["template", "number"], name="version_number_once")]

    def __str__(self) -> str:
        return f"{self.template} version {self.number}"

    @property
    def disk_versions(self) -> list[DiskVersion]:
        return [DiskVersion(**disk) for disk in self.disks]

    @property
    def allocated(self) -> int:
        """Bytes that a copy has to move."""
        return sum(disk["allocated"] for disk in self.disks)

    @property
    def digest(self) -> str:
        return str(self.disks[0]["digest"]) if self.disks else ""

    @property
    def portable(self) -> Definition:
        return Definition(**self.definition)


def image_name(template: str, version: int, disk: int, disks: int, suffix: str) -> str:
    """The name of a published image; ``{digest12}`` is filled in when the digest is known.

    Images are never renamed or rewritten, so the name carries template, version and digest.
    """
    part = "" if disks == 1 else f"-disk{disk}"
    return f"{template}-v{version}{part}-{{digest12}}.{suffix}"


def filled(name: str, digest: str, generation: int = 0) -> str:
    """Put the digest into an image name; later generations stand beside an image that was changed by hand."""
    tail = digest[:12] + (f"-{generation}" if generation else "")
    return name.replace("{digest12}", tail)
