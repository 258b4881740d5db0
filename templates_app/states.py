"""Phases, the moves between them, and the words that administrators read. Nothing here touches the database.

Desired, observed and working are three things; the words are computed from them and never stored.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from django.db.models import TextChoices
from django.utils.translation import gettext_lazy as _


class Desired(TextChoices):
    PRESENT = "present", _("Present")
    ABSENT = "absent", _("Absent")


class Intent(TextChoices):
    DISTRIBUTING = "distributing", _("Distributing")
    ADDING = "adding", _("Adding provider")


class Phase(TextChoices):
    """Of one template on one provider."""

    WAITING = "waiting", _("Waiting")
    CHECKING = "checking", _("Checking")
    COPYING = "copying", _("Copying")
    VERIFYING = "verifying", _("Verifying")
    PUBLISHING = "publishing", _("Publishing")
    INSTALLED = "installed", _("Installed")
    FAILED = "failed", _("Failed")
    REMOVING = "removing", _("Removing")


class TemplatePhase(TextChoices):
    CREATING = "creating", _("Creating")
    READY = "ready", _("Ready")
    ENTERING = "entering", _("Entering maintenance")
    MAINTENANCE = "maintenance", _("Maintenance")
    EXITING = "exiting", _("Exiting maintenance")
    CREATE_FAILED = "create_failed", _("Failed to create")
    DELETING = "deleting", _("Deleting")


class GuestPhase(TextChoices):
    CREATING = "creating", _("Creating")
    PREPARING = "preparing", _("Preparing")
    READY = "ready", _("Ready")
    RECREATING = "recreating", _("Recreating")
    DELETING = "deleting", _("Deleting")
    CREATE_FAILED = "create_failed", _("Failed to create")
    RECREATE_FAILED = "recreate_failed", _("Failed to recreate")
    LOST = "lost", _("Lost")


class RunPhase(TextChoices):
    ASKED = "asked", _("Asked")
    VERIFYING = "verifying", _("Verifying providers")
    BLOCKED = "blocked", _("Blocked")
    RUNNING = "running", _("Recreating")
    DEFERRED = "deferred", _("Deferred")
    COMPLETED = "completed", _("Completed")
    COMPLETED_WITH_ERRORS = "completed_with_errors", _("Completed with errors")
    CANCELLED = "cancelled", _("Cancelled")


Moves = Mapping[str, frozenset[str]]


def _moves(**table: str) -> Moves:
    return {phase: frozenset(targets.split()) for phase, targets in table.items()}


COPYING_PHASES = frozenset({Phase.CHECKING, Phase.COPYING, Phase.VERIFYING, Phase.PUBLISHING})

TARGET_MOVES = _moves(
    waiting="checking removing failed waiting installed",
    checking="copying publishing waiting failed",
    copying="verifying publishing waiting failed",
    verifying="publishing waiting failed",
    publishing="installed waiting failed",
    installed="waiting failed removing installed",
    failed="waiting removing failed",
    removing="waiting failed",
)
TEMPLATE_MOVES = _moves(
    creating="ready create_failed deleting creating",
    ready="entering deleting ready",
    entering="maintenance ready entering",
    maintenance="exiting maintenance",
    exiting="ready maintenance exiting",
    create_failed="creating deleting create_failed",
    deleting="deleting",
)
GUEST_MOVES = _moves(
    creating="preparing ready create_failed deleting creating",
    preparing="ready create_failed deleting preparing",
    ready="recreating deleting lost ready",
    recreating="ready recreate_failed deleting recreating",
    deleting="deleting ready create_failed recreate_failed",
    create_failed="creating deleting",
    recreate_failed="recreating deleting ready",
    lost="recreating deleting ready",
)
RUN_MOVES = _moves(
    asked="verifying deferred cancelled",
    verifying="running blocked verifying cancelled",
    blocked="verifying running deferred cancelled",
    running="completed completed_with_errors cancelled running",
    deferred="verifying cancelled",
    completed="",
    completed_with_errors="",
    cancelled="",
)


class State(TextChoices):
    """The State column of Distribution details."""

    READY = "Ready", _("Ready")
    NOT_AVAILABLE = "Not available", _("Not available")
    NEEDS_UPDATE = "Needs update", _("Needs update")


class Word(TextChoices):
    """The Progress column of Distribution details, and what the Distribution column is made of."""

    DISTRIBUTING = "Distributing", _("Distributing")
    OK = "OK", _("OK")
    ADDING = "Adding provider", _("Adding provider")
    REMOVING = "Removing provider", _("Removing provider")
    FAILED = "Failed to distribute", _("Failed to distribute")


REMOVING_AND_ADDING = "Removing / Adding provider"
NOT_MULTI_PROVIDER = "—"


@dataclass(frozen=True)
class Facts:
    """What the words of one target are computed from. ``available``: the provider may be given work now.

    ``made``: there is a version to copy, or there will be.
    """

    desired: str
    intent: str
    phase: str
    current: bool
    available: bool
    made: bool = True


def state(facts: Facts) -> State:
    """First match wins: silent provider, work under way, something to repeat, ready."""
    if not facts.available:
        return State.NOT_AVAILABLE
    if facts.phase == Phase.FAILED or (facts.phase == Phase.INSTALLED and not facts.current):
        return State.NEEDS_UPDATE
    return State.READY


def progress(facts: Facts) -> Word:
    """What happens to this target."""
    if facts.phase == Phase.FAILED:
        return Word.FAILED
    if facts.desired == Desired.ABSENT or facts.phase == Phase.REMOVING:
        return Word.REMOVING
    if facts.phase == Phase.INSTALLED:
        return Word.OK if facts.current else Word.FAILED
    if not facts.made:
        return Word.FAILED
    return Word.ADDING if facts.intent == Intent.ADDING else Word.DISTRIBUTING


def distribution(words: Iterable[Word]) -> str:
    """The Distribution column, over the Progress words of all targets of a multi-provider template."""
    seen = set(words)
    if {Word.ADDING, Word.REMOVING} <= seen:
        return REMOVING_AND_ADDING
    for word in (Word.ADDING, Word.REMOVING, Word.DISTRIBUTING, Word.FAILED):
        if word in seen:
            return word
    return Word.OK
