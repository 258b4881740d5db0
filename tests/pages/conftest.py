"""Rows as they look in the middle of a day's work, and one signed-in client for each role."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import Group, User
from django.test import Client
from django.utils import timezone

from providers_app.models import Inventory, Provider
from rasweb import access
from templates_app.models import (
    DistributionTarget,
    GuestVM,
    RecreateRun,
    Template,
    TemplateVersion,
)

HOSTILE = "<img src=x onerror=alert(1)>\u202e'\"{{7*7}}"


@dataclass
class World:
    """Makes rows that need no host."""

    made: int = 0
    providers: dict[str, Provider] = field(default_factory=dict)

    def provider(self, name: str, **fields: Any) -> Provider:
        now = timezone.now()
        known: dict[str, Any] = {
            "kind": "directory",
            "settings": {"path": f"/hosts/{name}"},
            "host_id": name,
            "reachability": "online",
            "last_seen_at": now,
            "last_checked_at": now,
            "free_bytes": 50 << 30,
            "total_bytes": 100 << 30,
            "capabilities": ["full_clone", "linked_clone", "power"],
        }
        row = Provider.objects.create(name=name, **{**known, **fields})
        Inventory.objects.create(provider=row, read_at=now)
        return row

    def silent(self, name: str) -> Provider:
        past = timezone.now() - timedelta(hours=1)
        text = "It did not answer within 10 seconds."
        return self.provider(
            name, reachability="not_available", last_seen_at=past, error_code="TIMEOUT", error_text=text
        )

    def template(self, name: str, source: Provider, phase: str = "ready", **fields: Any) -> Template:
        row = Template.objects.create(name=name, source_provider=source, **{"source_vm": "golden", **fields})
        disk = {"name": "disk", "format": "raw", "size": 8 << 30, "allocated": 1 << 30, "digest": "ab" * 32}
        version = TemplateVersion.objects.create(template=row, number=1, disks=[{**disk, "manifest": ""}])
        Template.objects.filter(pk=row.pk).update(phase=phase, current_version=version)
        row.refresh_from_db()
        self.target(row, source)
        return row

    def target(
        self, template: Template, provider: Provider, phase: str = "installed", **fields: Any
    ) -> DistributionTarget:
        now, version = timezone.now(), template.current_version
        known: dict[str, Any] = {"wanted_version": version, "bytes_total": 1 << 30}
        if phase == "installed":
            known |= {"installed_version": version, "verified_at": now}
        elif phase not in ("waiting", "failed"):
            known |= {"claim": uuid.uuid4(), "started_at": now - timedelta(minutes=1)}
        return DistributionTarget.objects.create(
            template=template, provider=provider, phase=phase, **{**known, **fields}
        )

    def version(self, template: Template, number: int) -> TemplateVersion:
        """A newer version that is current; nobody holds it yet."""
        current = template.current_version
        assert current is not None
        version = TemplateVersion.objects.create(template=template, number=number, disks=current.disks)
        Template.objects.filter(pk=template.pk).update(current_version=version)
        template.targets.update(wanted_version=version)
        template.refresh_from_db()
        return version

    def guest(self, template: Template, provider: Provider, **fields: Any) -> GuestVM:
        self.made += 1
        known = {
            "name": f"{template.name}-{self.made:03d}",
            "phase": "ready",
            "version": template.current_version,
        }
        return GuestVM.objects.create(template=template, provider=provider, **{**known, **fields})

    def run(self, template: Template, phase: str, **fields: Any) -> RecreateRun:
        return RecreateRun.objects.create(
            template=template, version=template.current_version, phase=phase, **fields
        )


@pytest.fixture
def world(db: None) -> World:
    return World()


@pytest.fixture
def busy(world: World) -> Template:
    """Every state of a target at once, on one template with outdated guests and a blocked recreation."""
    source = world.provider("source")
    template = world.template("win11", source)
    world.target(template, world.provider("copying"), "copying", bytes_done=1 << 29, rate=1 << 20)
    error = {"error_code": "NO_SPACE", "error_text": "Too full.", "error_action": "Free some space."}
    world.target(template, world.provider("full"), "failed", attempt=3, **error)
    world.target(template, world.silent("gone"), "waiting", desired="absent")
    world.target(template, world.provider("adding"), "waiting", intent="adding")
    old = template.current_version
    world.version(template, 2)
    world.guest(template, source, version=old)
    world.guest(template, source, phase="create_failed", error_text="Too full.")
    world.run(template, "blocked", silent=["gone"])
    return template


@pytest.fixture
def login(db: None) -> Callable[[str | None], Client]:
    """``login("operator")``: a client of a user with that role; None for a user without any."""

    def make(role: str | None) -> Client:
        user = User.objects.create_user(f"a-{role}", password="a good long password")
        if role:
            user.groups.add(Group.objects.get(name=access.GROUPS[role]))
        client = Client()
        client.force_login(user)
        return client

    return make


@pytest.fixture
def viewer(login: Callable[[str | None], Client]) -> Client:
    return login("viewer")


@pytest.fixture
def operator(login: Callable[[str | None], Client]) -> Client:
    return login("operator")


@pytest.fixture
def administrator(login: Callable[[str | None], Client]) -> Client:
    return login("administrator")
