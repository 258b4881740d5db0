"""What stands round every page: the way to the other pages with its badges, and the dock of recent tasks."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Self

from django.db.models import F, Q
from django.http import HttpRequest
from django.urls import reverse
from django.utils.translation import gettext as _

from providers_app.models import Provider
from rasweb import access
from templates_app import activity, guests
from templates_app.models import DistributionTarget, Event, GuestVM, Template
from templates_app.states import Phase, TemplatePhase

DOCK_TASKS, DOCK_EVENTS = 8, 6


@dataclass(frozen=True)
class Badge:
    """A number beside a way: red for what failed, blue for what runs; ``word`` says it to screen readers."""

    key: str
    count: int
    tone: str
    word: str


@dataclass(frozen=True)
class Way:
    """One line of the sidebar. ``go`` is its key after ``g``."""

    label: str
    icon: str
    url: str
    go: str = ""
    badge: Badge | None = None
    active: bool = False


@dataclass(frozen=True)
class Chrome:
    badges: list[Badge]
    nav: list[Way] = field(default_factory=list)
    role_label: str = ""
    socket: str = "/ws/"

    @classmethod
    def now(cls) -> Self:
        return cls(badges=_badges())

    @classmethod
    def of(cls, request: HttpRequest, role: str) -> Self:
        badges = _badges()
        by_key = {badge.key: badge for badge in badges}
        path = request.path
        ways = [
            Way(
                label=label,
                icon=icon,
                url=reverse(name),
                go=go,
                badge=by_key.get(name),
                active=path == reverse(name) or (name != "overview" and path.startswith(reverse(name))),
            )
            for label, icon, name, go in _ways(role)
        ]
        return cls(badges, ways, str(access.ROLES[role]))

    @property
    def running(self) -> int:
        return next(badge.count for badge in self.badges if badge.key == "activity")

    @property
    def failed(self) -> int:
        return next(badge.count for badge in self.badges if badge.key == "templates")

    @property
    def tasks(self) -> list[activity.Task]:
        return activity.tasks(DOCK_TASKS)[:DOCK_TASKS]

    @property
    def events(self) -> list[Event]:
        return list(activity.finished(DOCK_EVENTS))


def _ways(role: str) -> list[tuple[str, str, str, str]]:
    ways = [
        (_("Overview"), "layout-dashboard", "overview", "o"),
        (_("Templates"), "template", "templates", "t"),
        (_("Providers"), "server", "providers", "p"),
        (_("Guest VMs"), "device-desktop", "guests", "g"),
        (_("Activity"), "activity", "activity", "a"),
    ]
    if role == access.ADMINISTRATOR:
        ways.append((_("Django admin"), "shield-lock", "admin:index", ""))
    return ways


def _badges() -> list[Badge]:
    spoilt = GuestVM.objects.filter(phase__in=guests.FAILED).count()
    silent = Provider.objects.filter(enabled=True).exclude(pk__in=Provider.objects.available()).count()
    return [
        Badge("templates", _failed_templates(), "danger", _("failed")),
        Badge("providers", silent, "danger", _("not available")),
        Badge("guests", spoilt, "danger", _("failed")),
        Badge("activity", activity.running_count(), "primary", _("running")),
    ]


def _failed_templates() -> int:
    failed = Q(phase=Phase.FAILED) & ~Q(error_code="CANCELLED")
    stale = Q(phase=Phase.INSTALLED) & ~Q(installed_version=F("wanted_version"))
    spoilt = DistributionTarget.objects.filter(failed | stale).order_by()
    return Template.objects.filter(
        Q(phase=TemplatePhase.CREATE_FAILED) | Q(pk__in=spoilt.values("template"))
    ).count()
