"""Who may do what: three roles, and one table of routes that is enforced for every request."""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum
from typing import Any

from django.contrib.auth.models import Group
from django.contrib.auth.views import redirect_to_login
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from rasweb.stamps import stamp

VIEWER, OPERATOR, ADMINISTRATOR = "viewer", "operator", "administrator"
ROLES = {VIEWER: _("Viewer"), OPERATOR: _("Operator"), ADMINISTRATOR: _("Administrator")}
GROUPS = {VIEWER: "Viewer", OPERATOR: "Operator", ADMINISTRATOR: "Administrator"}
EVERYBODY = "everybody"


class Rank(IntEnum):
    """How far a role reaches; each may do what the lower ones may."""

    everybody = 0
    viewer = 1
    operator = 2
    administrator = 3


def role(user: Any) -> str | None:
    """The highest role of a signed-in user; None for strangers and for users that were given none."""
    if not user.is_authenticated or not user.is_active:
        return None
    if user.is_superuser:
        return ADMINISTRATOR
    if not hasattr(user, "held_role"):
        held = set(user.groups.values_list("name", flat=True))
        user.held_role = next((key for key in reversed(ROLES) if GROUPS[key] in held), None)
    known: str | None = user.held_role
    return known


def at_least(user: Any, needed: str) -> bool:
    held = role(user)
    return Rank[held or EVERYBODY] >= Rank[needed]


def needs(held: str | None, needed: str) -> str:
    """Why a role does not suffice, in words; empty where it does."""
    if Rank[held or EVERYBODY] >= Rank[needed]:
        return ""
    return gettext("Needs the role %s") % ROLES[needed]


def make_groups(**kwargs: Any) -> None:
    """One group for each role; asked for after each migration."""
    for name in GROUPS.values():
        Group.objects.get_or_create(name=name)


def reads(needed: str = VIEWER) -> dict[str, str]:
    return {"GET": needed}


def acts(needed: str = OPERATOR) -> dict[str, str]:
    return {"POST": needed}


def asks(needed: str = OPERATOR) -> dict[str, str]:
    """A dialog: shown by GET, answered by POST, for the same people."""
    return {"GET": needed, "POST": needed}


# Route name → method → role. What is not here is refused; HEAD and OPTIONS go with GET.
MATRIX: dict[str, dict[str, str]] = {
    "healthz": reads(EVERYBODY),
    "readyz": reads(EVERYBODY),
    "login": asks(EVERYBODY),
    "logout": acts(EVERYBODY),
    "setup": asks(EVERYBODY),
    "shortcuts": reads(),
    "overview": reads(),
    "search": reads(),
    "dock": reads(),
    "activity": reads(),
    "templates": reads(),
    "templates-menu": reads(),
    "templates-retry": acts(),
    "templates-maintenance": asks(),
    "templates-recreate": asks(),
    "template-new": asks(),
    "template": reads(),
    "template-properties": {"GET": VIEWER, "POST": OPERATOR},
    "template-distribution": reads(),
    "template-retry": acts(),
    "template-again": acts(),
    "template-delete": asks(),
    "template-enter": asks(),
    "template-leave": asks(),
    "template-shut-down": acts(),
    "template-power-off": acts(),
    "template-recreate": asks(),
    "template-later": acts(),
    "version-current": acts(),
    "target-retry": acts(),
    "target-cancel": acts(),
    "target-force": acts(ADMINISTRATOR),
    "guests": reads(),
    "guests-menu": reads(),
    "guests-selected": asks(),
    "guest-new": asks(),
    "guest-recreate": acts(),
    "guest-delete": acts(),
    "guest-power": acts(),
    "providers": reads(),
    "providers-menu": reads(),
    "providers-limits": asks(ADMINISTRATOR),
    "provider": reads(),
    "provider-new": asks(ADMINISTRATOR),
    "provider-edit": asks(ADMINISTRATOR),
    "provider-test": acts(ADMINISTRATOR),
    "provider-check": acts(),
    "provider-enable": acts(ADMINISTRATOR),
    "provider-disable": acts(ADMINISTRATOR),
    "provider-delete": asks(ADMINISTRATOR),
    "provider-forget": asks(ADMINISTRATOR),
}


class Gate:
    """Middleware: no view runs unless the table says so. Strangers are sent to the login."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        return self.get_response(request)

    def process_view(self, request: HttpRequest, view: Any, args: Any, kwargs: Any) -> HttpResponse | None:
        request.v = stamp()  # type: ignore[attr-defined]  # everything the view reads is at least this fresh
        needed = needed_role(request)
        if needed is None:
            raise PermissionDenied(_("This address is not open to anybody."))
        if needed == EVERYBODY:
            return None
        if not request.user.is_authenticated:
            return redirect_to_login(request.get_full_path())
        if not at_least(request.user, needed):
            raise PermissionDenied(_("Your role does not allow this. It needs: %s.") % ROLES[needed])
        return None


def needed_role(request: HttpRequest) -> str | None:
    match = request.resolver_match
    method = "GET" if request.method in {"HEAD", "OPTIONS"} else str(request.method)
    if match is None:
        return None
    if "admin" in match.namespaces:
        return ADMINISTRATOR
    return MATRIX.get(match.view_name, {}).get(method)
