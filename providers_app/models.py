"""Providers: the hypervisor hosts that hold templates and guest VMs."""

from __future__ import annotations

import uuid
from datetime import timedelta
from typing import Any

from django.conf import settings
from django.core.validators import MinValueValidator, RegexValidator
from django.db import models
from django.db.models import F, Q
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from providers_app import secrets
from providers_app.allowed import allowed
from providers_app.drivers import open_driver
from providers_app.hostcalls import HostAddress
from rasweb import live

NAME = RegexValidator(
    r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}\Z",
    _("Use letters, digits, dot, dash and underscore; begin with a letter or digit."),
)


class Installation(models.Model):
    """This rasweb, as it marks what it makes on hosts. One row, made by the first migration."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    bandwidth_limit = models.PositiveBigIntegerField(default=0)
    created_at = models.DateTimeField(auto_now_add=True)

    def __str__(self) -> str:
        return str(self.id)

    @classmethod
    def bandwidth(cls) -> int:
        """Bytes per second that all copies together may send, 0 for no limit."""
        return cls.objects.values_list("bandwidth_limit", flat=True).get()

    @classmethod
    def key(cls) -> str:
        return str(cls.objects.values_list("id", flat=True).get())


class Reachability(models.TextChoices):
    UNKNOWN = "unknown", _("Unknown")
    ONLINE = "online", _("Online")
    NOT_AVAILABLE = "not_available", _("Not available")


class ProviderQuerySet(models.QuerySet["Provider"]):
    def available(self) -> ProviderQuerySet:
        """Those that may be given work now: enabled, online, and seen within three check intervals."""
        return self.filter(
            enabled=True, reachability=Reachability.ONLINE, last_seen_at__gt=Provider.stale_before()
        )


class Provider(models.Model):
    """One host. ``settings`` are those of its driver's fields; sizes in bytes, limits in bytes per second.

    Its last silence lies between the last answer before and the first one after it.
    """

    name = models.CharField(max_length=63, unique=True, validators=[NAME])
    kind = models.CharField(max_length=32)
    settings = models.JSONField(default=dict)
    sealed_secrets = models.TextField(blank=True, editable=False)
    enabled = models.BooleanField(default=True)
    bandwidth_limit = models.PositiveBigIntegerField(
        null=True,
        blank=True,
        help_text=_("Bytes per second written to this provider; empty for the default, 0 for none."),
    )
    max_copies = models.PositiveSmallIntegerField(
        default=8,
        validators=[MinValueValidator(1)],
        help_text=_("Copies read from it at once, and as many written to it."),
    )

    host_id = models.CharField(max_length=128, unique=True, editable=False)
    reachability = models.CharField(max_length=16, choices=Reachability, default=Reachability.UNKNOWN)
    failures = models.PositiveIntegerField(default=0, editable=False)
    last_checked_at = models.DateTimeField(null=True, editable=False)
    last_seen_at = models.DateTimeField(null=True, editable=False)
    online_since = models.DateTimeField(null=True, editable=False)
    silence_began_at = models.DateTimeField(null=True, editable=False)
    silence_ended_at = models.DateTimeField(null=True, editable=False)
    next_check_at = models.DateTimeField(null=True, editable=False, db_index=True)
    error_code = models.CharField(max_length=32, blank=True, editable=False)
    error_text = models.TextField(blank=True, editable=False)
    error_action = models.TextField(blank=True, editable=False)
    capabilities = models.JSONField(default=list, editable=False)
    networks = models.JSONField(null=True, editable=False)
    free_bytes = models.BigIntegerField(default=0, editable=False)
    total_bytes = models.BigIntegerField(default=0, editable=False)
    revision = models.PositiveBigIntegerField(default=0, editable=False)
    created_at = models.DateTimeField(auto_now_add=True)
    changed_at = models.DateTimeField(auto_now=True)

    objects = ProviderQuerySet.as_manager()

    class Meta:
        ordering = ["name"]
        constraints = [
            models.CheckConstraint(
                condition=Q(reachability__in=Reachability.values), name="provider_reachability_known"
            ),
        ]

    def __str__(self) -> str:
        return self.name

    @staticmethod
    def stale_before() -> Any:
        """Facts older than this are unknown."""
        return timezone.now() - timedelta(seconds=3 * settings.CHECK_INTERVAL + 10)

    @property
    def stale(self) -> bool:
        return self.last_seen_at is None or self.last_seen_at <= self.stale_before()

    @property
    def available(self) -> bool:
        return self.enabled and self.reachability == Reachability.ONLINE and not self.stale

    @property
    def bandwidth(self) -> int:
        """Bytes per second that may be written to it, 0 for no limit."""
        return settings.BANDWIDTH_LIMIT if self.bandwidth_limit is None else self.bandwidth_limit

    def address(self) -> HostAddress:
        """What a driver needs to reach it. Holds secrets: never logged, never shown."""
        known = {**self.settings, **allowed(), "host_id": self.host_id}
        return HostAddress(self.kind, known, secrets.unseal(self.sealed_secrets, self.kind, self.settings))

    def location(self, ref: str) -> str:
        """Where an administrator finds an object of this host."""
        return open_driver(self.kind, self.settings).location(ref)

    def touch(self, **fields: Any) -> None:
        """Write these columns alone, and count the revision that pages compare."""
        type(self).objects.filter(pk=self.pk).update(
            revision=F("revision") + 1, changed_at=timezone.now(), **fields
        )
        self.refresh_from_db()

    @property
    def standing(self) -> tuple[bool, str, str]:
        """What pages about templates say of it: whether it is available, and if not, why."""
        return self.available, self.error_code, self.error_text

    def topics(self) -> list[str]:
        """The pages that show its standing: those about the templates distributed to it too."""
        templates = self.targets.values_list("template_id", flat=True)
        return [*self._own_topics(), "chrome", "templates", *(f"template:{pk}" for pk in templates)]

    def _own_topics(self) -> list[str]:
        return ["providers", f"provider:{self.pk}"]

    def announce(self) -> None:
        live.changed("provider", self.pk, *self.topics())

    def announce_check(self) -> None:
        """Tell of a check that left its standing as it was: when it was seen last, and its free space."""
        live.changed("provider", self.pk, *self._own_topics())


class Inventory(models.Model):
    """What a provider held at its last good check, as read from it."""

    provider = models.OneToOneField(Provider, on_delete=models.CASCADE, primary_key=True)
    vms = models.JSONField(default=list)
    guests = models.JSONField(default=list)
    images = models.JSONField(default=list)
    staged = models.JSONField(default=list)
    hardware = models.TextField(blank=True, default="")
    read_at = models.DateTimeField()

    class Meta:
        verbose_name_plural = "inventories"

    def __str__(self) -> str:
        return f"{self.provider}: {len(self.vms)} VMs"
