"""One template on one provider: what is wanted there, what is there, what is being done."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from random import uniform
from typing import TYPE_CHECKING

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.utils import timezone

from providers_app.models import Provider
from templates_app import states
from templates_app.models.template import Template, TemplateVersion
from templates_app.models.work import CLOCKS_DIFFER, Work, error
from templates_app.states import COPYING_PHASES, Desired, Facts, Intent, Phase, State, Word

if TYPE_CHECKING:
    from django.db.models.fields.related_descriptors import RelatedManager

MOST_JITTER = 1.2
LONGEST_PAUSE = timedelta(days=1)  # of what does not hurry
CLAIMED = sorted(COPYING_PHASES | {Phase.REMOVING})


class DistributionTarget(Work):
    """``attempt`` counts tries since the last order; ``bytes_peak`` is the furthest that any of them came.

    ``timing`` says where the time of the latest copy went (:mod:`templates_app.timing`).
    ``compared`` are the bytes of data, in disk order, that a reading which gave way found right.
    ``generation`` names a fresh image beside one that was found to differ. ``cancel`` asks the worker to stop.
    """

    moves = states.TARGET_MOVES

    phase = models.CharField(max_length=16, choices=Phase, default=Phase.WAITING)
    template = models.ForeignKey(Template, on_delete=models.CASCADE, related_name="targets")
    provider = models.ForeignKey(Provider, on_delete=models.PROTECT, related_name="targets")
    desired = models.CharField(max_length=8, choices=Desired, default=Desired.PRESENT)
    intent = models.CharField(max_length=16, choices=Intent, default=Intent.DISTRIBUTING)
    wanted_version = models.ForeignKey(
        TemplateVersion, null=True, on_delete=models.PROTECT, related_name="+", editable=False
    )
    installed_version = models.ForeignKey(
        TemplateVersion, null=True, on_delete=models.PROTECT, related_name="+", editable=False
    )
    reading_from = models.ForeignKey(
        Provider, null=True, on_delete=models.SET_NULL, related_name="+", editable=False
    )
    copying_version = models.ForeignKey(
        TemplateVersion, null=True, on_delete=models.SET_NULL, related_name="+", editable=False
    )
    generation = models.PositiveSmallIntegerField(default=0, editable=False)
    cancel = models.BooleanField(default=False, editable=False)
    force = models.BooleanField(default=False, editable=False)
    delete_guests = models.BooleanField(default=False, editable=False)
    bytes_done = models.BigIntegerField(default=0, editable=False)
    bytes_peak = models.BigIntegerField(default=0, editable=False)
    bytes_total = models.BigIntegerField(default=0, editable=False)
    rate = models.BigIntegerField(default=0, editable=False)
    compared = models.BigIntegerField(default=0, editable=False)
    timing = models.JSONField(default=dict, editable=False)
    attempt = models.PositiveSmallIntegerField(default=0, editable=False)
    next_try_at = models.DateTimeField(null=True, editable=False)
    started_at = models.DateTimeField(null=True, editable=False)
    verified_at = models.DateTimeField(null=True, editable=False)

    images: RelatedManager[PublishedImage]

    class Meta:
        ordering = ["provider__name"]
        indexes = [
            models.Index(fields=["phase", "template"], name="target_phase"),
            models.Index(fields=["claim"], condition=Q(claim__isnull=False), name="target_claim"),
            models.Index(fields=["error_code"], name="target_error"),
        ]
        constraints = [
            models.UniqueConstraint(fields=["template", "provider"], name="target_once"),
            models.CheckConstraint(condition=Q(phase__in=Phase.values), name="target_phase_known"),
            models.CheckConstraint(
                condition=~Q(phase__in=CLAIMED) | Q(claim__isnull=False), name="target_at_work_is_claimed"
            ),
            models.CheckConstraint(
                condition=~Q(phase=Phase.INSTALLED)
                | Q(installed_version__isnull=False, verified_at__isnull=False),
                name="target_installed_was_read_back",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.template} on {self.provider}"

    @property
    def facts(self) -> Facts:
        return Facts(
            desired=self.desired,
            intent=self.intent,
            phase=self.phase,
            current=self.installed_version_id == self.wanted_version_id,
            available=self.provider.available,
            made=self.template.made,
        )

    @property
    def state(self) -> State:
        return states.state(self.facts)

    @property
    def progress(self) -> Word:
        return states.progress(self.facts)

    @property
    def at_work(self) -> bool:
        return self.phase in CLAIMED

    @property
    def percent(self) -> float:
        """Of the bytes to be proven on the host; 100 only once installed."""
        if self.phase == Phase.INSTALLED:
            return 100.0
        share = 100.0 * self.bytes_done / self.bytes_total if self.bytes_total else 0.0
        return round(min(share, 99.9), 1)

    @property
    def seconds_left(self) -> int | None:
        """None where it can not be told yet: less than five seconds in, or nothing moves."""
        young = self.started_at is None or timezone.now() - self.started_at < timedelta(seconds=5)
        if young or not self.rate or self.phase != Phase.COPYING:
            return None
        return max(0, round((self.bytes_total - self.bytes_done) / self.rate))

    @property
    def owed(self) -> bool:
        """A removal that waits for its provider."""
        return self.desired == Desired.ABSENT and self.phase == Phase.WAITING and not self.provider.available

    def topics(self) -> Sequence[str]:
        return (
            "templates",
            f"template:{self.template_id}",
            "activity",
            "chrome",
            f"provider:{self.provider_id}",
        )

    def held(self, version: TemplateVersion | None) -> models.QuerySet[PublishedImage]:
        """The images of a version that may be used, in disk order."""
        return self.images.filter(version=version, spoilt=False).order_by("disk")

    def spoil(self, version: TemplateVersion | None) -> None:
        """Use the images of a version no more until they are proven again."""
        self.held(version).update(spoilt=True)

    def next_try(self) -> datetime | None:
        """When to try again by itself after the present attempt; None when no tries are left."""
        delays = settings.RETRY_DELAYS
        if self.attempt > len(delays):
            return None
        jitter = uniform(0.8, MOST_JITTER)  # noqa: S311  # spreads tries, guards nothing
        return timezone.now() + timedelta(seconds=delays[max(self.attempt, 1) - 1] * jitter)

    def recover(self) -> bool:
        """A lost worker: the next one goes on from what is proven. A try that came further costs nothing."""
        if not self.at_work:
            return self.release(self.phase, note="Taken over from a worker that ended.")
        lost = error("WORKER_LOST", "The worker that copied the image ended; another goes on.")
        if self.cancel or self.desired == Desired.ABSENT:
            return self.release(Phase.WAITING, attempt=0, next_try_at=None, **lost)
        further = self.bytes_done > self.bytes_peak
        attempt = 0 if further else self.attempt
        if attempt > len(settings.RETRY_DELAYS):
            return self.release(Phase.FAILED, **lost)
        peak = max(self.bytes_peak, self.bytes_done)
        return self.release(Phase.WAITING, attempt=attempt, bytes_peak=peak, next_try_at=None, **lost)


def to_be_tried() -> Q:
    """Targets whose pause is over, or never was one.

    One that lasts longer than any was begun before the clock was set back.
    """
    now = timezone.now()
    retry = timedelta(seconds=max(settings.RETRY_DELAYS, default=600) * MOST_JITTER)
    latest = now + CLOCKS_DIFFER
    endless = Q(next_try_at__gt=latest + retry, phase=Phase.WAITING) | Q(
        next_try_at__gt=latest + LONGEST_PAUSE
    )
    return Q(next_try_at=None) | Q(next_try_at__lte=now) | endless


class PublishedImage(models.Model):
    """One disk of one version that was published and proven on one provider. ``ref`` is the host's own id of it.

    A ``spoilt`` one was changed since, or may have been, or is gone: nothing is made or copied from it any more.
    """

    target = models.ForeignKey(DistributionTarget, on_delete=models.CASCADE, related_name="images")
    version = models.ForeignKey(TemplateVersion, on_delete=models.PROTECT, related_name="published")
    disk = models.PositiveSmallIntegerField()
    name = models.CharField(max_length=255)
    ref = models.TextField()
    size = models.BigIntegerField()
    digest = models.CharField(max_length=64)
    stamp = models.CharField(max_length=255)
    verified_at = models.DateTimeField(default=timezone.now)
    spoilt = models.BooleanField(default=False, editable=False)

    class Meta:
        ordering = ["version", "disk"]
        indexes = [models.Index(fields=["target"], condition=Q(spoilt=True), name="image_spoilt")]
        constraints = [
            models.UniqueConstraint(
                fields=["target", "version", "disk"], condition=Q(spoilt=False), name="published_once"
            )
        ]

    def __str__(self) -> str:
        return self.name
