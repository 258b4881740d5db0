"""How templates, targets, guests and recreations look: words computed from rows, never stored."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from django.db.models import Q
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from rasweb.looks import DOT, SPINNER, Look
from rasweb.quantities import duration, rate, share
from templates_app import states, timing, workingcopy
from templates_app.models import DistributionTarget, GuestVM, RecreateRun, Template
from templates_app.states import Desired, Facts, GuestPhase, Phase, RunPhase, State, TemplatePhase, Word

TEMPLATE_TONES = {
    TemplatePhase.READY: "success",
    TemplatePhase.CREATING: "primary",
    TemplatePhase.CREATE_FAILED: "danger",
}
STATE_LOOKS = {
    State.READY: ("success", "circle-check"),
    State.NOT_AVAILABLE: ("danger", "plug-x"),
    State.NEEDS_UPDATE: ("warning", "refresh"),
}
WORD_LOOKS: dict[str, tuple[str, str]] = {
    Word.DISTRIBUTING: ("primary", SPINNER),
    Word.OK: ("success", "circle-check"),
    Word.ADDING: ("info", "circle-plus"),
    Word.REMOVING: ("warning", "circle-minus"),
    Word.FAILED: ("danger", "alert-triangle"),
    states.REMOVING_AND_ADDING: ("info", "circle-plus"),
}
GUEST_LOOKS = {
    GuestPhase.READY: ("success", "circle-check"),
    GuestPhase.DELETING: ("warning", "circle-minus"),
    GuestPhase.CREATE_FAILED: ("danger", "alert-triangle"),
    GuestPhase.RECREATE_FAILED: ("danger", "alert-triangle"),
    GuestPhase.LOST: ("danger", "plug-x"),
}
RUN_LOOKS = {
    RunPhase.ASKED: ("warning", "help-circle"),
    RunPhase.BLOCKED: ("danger", "plug-x"),
    RunPhase.DEFERRED: ("warning", "clock"),
    RunPhase.COMPLETED: ("success", "circle-check"),
    RunPhase.COMPLETED_WITH_ERRORS: ("danger", "alert-triangle"),
    RunPhase.CANCELLED: ("secondary", "ban"),
}
STOPPED = Q(phase=Phase.FAILED, error_code="CANCELLED")
COPIED = (Word.DISTRIBUTING, Word.ADDING)
ACTIVE = (*COPIED, Word.REMOVING)


@dataclass(frozen=True)
class Line:
    """A word with what stands below it. ``percent`` is None without a bar, negative for a bar without an end.

    ``cause`` and ``action`` are set where something failed, ``held_up`` says what a running copy waits for most.
    """

    look: Look
    percent: float | None = None
    detail: str = ""
    cause: str = ""
    action: str = ""
    held_up: str = ""

    @property
    def whole_percent(self) -> int | None:
        """Rounded down: 100 would say that it is done."""
        return None if self.percent is None else int(self.percent)


@dataclass(frozen=True)
class Distribution:
    """The Distribution and Providers columns of one template, over all its targets."""

    line: Line
    key: str
    ready: int
    failed: int
    total: int


@dataclass(frozen=True)
class WorkingCopy:
    """``power`` is on, off or unknown; ``asked`` when it was asked to shut down and has not done so."""

    name: str
    power: str
    asked: datetime | None
    may_switch: bool


def working_copy(template: Template) -> WorkingCopy:
    order = workingcopy.order_of(template)
    return WorkingCopy(
        template.maintenance.get("vm", ""),
        workingcopy.power(template),
        datetime.fromisoformat(order["since"]) if order else None,
        workingcopy.may_switch(template),
    )


def status(template: Template) -> Look:
    label = TemplatePhase(template.phase).label
    return Look(str(label), TEMPLATE_TONES.get(TemplatePhase(template.phase), "warning"), DOT)


def state(target: DistributionTarget) -> Look:
    tone, icon = STATE_LOOKS[target.state]
    return Look(str(target.state.label), tone, icon)


def guest(vm: GuestVM) -> Look:
    tone, icon = GUEST_LOOKS.get(GuestPhase(vm.phase), ("primary", SPINNER))
    return Look(str(GuestPhase(vm.phase).label), tone, icon)


def run(order: RecreateRun) -> Look:
    tone, icon = RUN_LOOKS.get(RunPhase(order.phase), ("primary", SPINNER))
    return Look(str(RunPhase(order.phase).label), tone, icon)


def worded(word: str, label: str = "") -> Look:
    tone, icon = WORD_LOOKS.get(word, ("secondary", "ban"))
    return Look(label or (str(Word(word).label) if word in Word.values else word), tone, icon)


def progress(target: DistributionTarget) -> Line:
    """The Progress column of one target."""
    line = _progress(target)
    return replace(line, detail=" · ".join(filter(None, [line.detail, _elapsed(target)])))


def _progress(target: DistributionTarget) -> Line:
    look = worded(target.progress)
    if target.progress == Word.FAILED:
        return _failed(target, look)
    if target.progress == Word.OK:
        return Line(look, detail=timing.outcome(target.timing))
    if target.progress == Word.REMOVING:
        return Line(look, None if target.owed else -1, _owed(target), target.error_text, target.error_action)
    if target.cancel:
        return Line(look, -1, _("Stopping; what was copied is deleted first."))
    if target.phase == Phase.WAITING:
        return _waiting(target, look)
    return Line(look, target.percent, _moving(target), held_up=timing.sentence(target.timing))


@dataclass(frozen=True)
class Group:
    """Targets of one template that are alike: how many, the bytes to copy, and how many of these are done.

    ``stopped``: how many of them somebody cancelled.
    """

    facts: Facts
    count: int
    total: int
    done: int
    stopped: int

    @property
    def word(self) -> Word:
        return states.progress(self.facts)


def distribution(
    template: Template, groups: Sequence[Group], copied: Sequence[DistributionTarget]
) -> Distribution:
    """Words over all targets; one failed target is never hidden by a running one. ``copied``: those in that phase."""
    words: Counter[Word] = Counter()
    conditions: Counter[State] = Counter()
    for group in groups:
        words[group.word] += group.count
        conditions[states.state(group.facts)] += group.count
    key = states.distribution(words) if template.multi_provider else states.NOT_MULTI_PROVIDER
    ready, silent = conditions[State.READY], conditions[State.NOT_AVAILABLE]
    parts = (
        [] if key == Word.OK else [_("%(ok)d of %(total)d") % {"ok": words[Word.OK], "total": words.total()}]
    )
    stopped = sum(group.stopped for group in groups if group.word == Word.FAILED)
    failed = words[Word.FAILED] - stopped
    parts += [_("%d failed") % failed] if failed else []
    parts += [_("%d cancelled") % stopped] if stopped else []
    parts += [_("%d not available") % silent] if silent else []
    moving = any(words[word] for word in ACTIVE)
    detail = " · ".join([", ".join(parts), *_pace(groups, copied)])
    look = worded(key) if failed or key != Word.FAILED else _stopped(worded(key))
    line = Line(look, _percent(groups, key) if moving else None, detail)
    if template.phase == TemplatePhase.CREATING:
        line = _reading(template, key)
    if not template.made:
        line = replace(line, cause=template.error_text, action=template.error_action)
    failed = failed if template.made else 0  # what is to be retried is the creation
    return Distribution(line, key, ready, failed, words.total())


def _reading(template: Template, key: str) -> Line:
    """Before there is a version: how far the source VM is read."""
    work = creation(template)
    look = worded(key) if template.multi_provider else work.look
    return Line(look, work.percent, work.detail or _("Reading the source VM"))


def recreation(order: RecreateRun) -> Line:
    """How far a recreation is."""
    counts = Counter(order.items.values_list("phase", flat=True))
    total, done, spoilt = counts.total(), counts["done"], counts["failed"] + counts["skipped"]
    detail = _("%(done)d of %(total)d guest VMs") % {"done": done, "total": total} if total else ""
    detail += f", {_('%d not recreated') % spoilt}" if spoilt else ""
    detail = RecreateRun.QUESTION if order.phase == RunPhase.ASKED else detail
    running = order.phase in (RunPhase.RUNNING, RunPhase.VERIFYING)
    percent = (100.0 * (done + spoilt) / total if total else -1) if running else None
    return Line(run(order), percent, detail, _silent(order))


def creation(template: Template) -> Line:
    """How far reading the source of a new version is."""
    reads = template.bytes_total and template.phase in (TemplatePhase.CREATING, TemplatePhase.EXITING)
    percent = 100.0 * template.bytes_done / template.bytes_total if reads else -1
    detail = share(template.bytes_done, template.bytes_total) if reads else ""
    return Line(status(template), min(percent, 99.9), detail, template.error_text, template.error_action)


def _percent(groups: Sequence[Group], key: str) -> float:
    """Of all bytes that are on their way, and of those that arrived before while a version is distributed.

    Negative while nothing can be counted.
    """
    counted = (*COPIED, Word.OK) if key == Word.DISTRIBUTING else COPIED
    moving = [group for group in groups if group.word in counted]
    total, done = sum(group.total for group in moving), sum(group.done for group in moving)
    return min(99.9, 100.0 * done / total) if total and done else -1


def _pace(groups: Sequence[Group], copied: Sequence[DistributionTarget]) -> list[str]:
    """Rate of all that is copied now, and time left: all bytes at that rate, but no less than the slowest copy."""
    together = sum(target.rate for target in copied)
    known = [seconds for target in copied if (seconds := target.seconds_left) is not None]
    if not known:
        return _paced(together, None)
    ahead = sum(each.total - each.done for each in groups if each.word in COPIED and each.facts.available)
    return _paced(together, max(*known, round(ahead / together)))


def _paced(per_second: float, left: int | None) -> list[str]:
    parts = [rate(per_second)] if per_second else []
    return [*parts, _("%s left") % duration(left)] if left is not None else parts


def _failed(target: DistributionTarget, look: Look) -> Line:
    if target.phase == Phase.INSTALLED:
        version = target.installed_version.number if target.installed_version else "–"
        return Line(look, detail=_("Still at version %s.") % version)
    if target.phase == Phase.WAITING:  # for a version that was not made
        return Line(look, cause=target.template.error_text, action=target.template.error_action)
    if target.error_code == "CANCELLED":
        return Line(_stopped(look), detail=f"{target.error_text} {target.error_action}")
    tries = (
        ngettext("%d attempt", "%d attempts", target.attempt) % target.attempt if target.attempt > 1 else ""
    )
    return Line(look, None, tries, target.error_text or _("No cause was given."), target.error_action)


def _stopped(look: Look) -> Look:
    """Of what somebody cancelled: that is no failure, though it goes by the same word."""
    return replace(look, tone="secondary", icon="ban")


def _owed(target: DistributionTarget) -> str:
    return _("Owed: done when the provider is back.") if target.owed else ""


def _waiting(target: DistributionTarget, look: Look) -> Line:
    if not target.provider.available:
        detail = _("Waiting for the provider")
    elif target.next_try_at and target.error_text:
        detail = _("Tries again by itself, attempt %d") % (target.attempt + 1)
    elif target.wanted_version_id is None:
        detail = _("Waiting for the first version")
    else:
        detail = _("Waiting for a free slot")
    return Line(look, target.percent if target.bytes_done else -1, detail, target.error_text)


def _moving(target: DistributionTarget) -> str:
    """``62 % · 74.2 of 120.0 GiB · 312 MiB/s · 2 min 31 s left``"""
    if target.phase in (Phase.CHECKING, Phase.VERIFYING, Phase.PUBLISHING):
        return str(Phase(target.phase).label)
    parts = [_("Checking what is there")] if target.bytes_done < target.bytes_peak else []
    parts += [share(target.bytes_done, target.bytes_total)] if target.bytes_total else []
    return " · ".join([*parts, *_paced(target.rate, target.seconds_left)])


def _elapsed(target: DistributionTarget) -> str:
    """How long the work ran when it was last heard of, which is every second or two."""
    if target.started_at is None or not target.at_work:
        return ""
    return _("%s elapsed") % duration((target.changed_at - target.started_at).total_seconds())


def _silent(order: RecreateRun) -> str:
    names = ", ".join(order.silent)
    return _("Not responding: %s.") % names if names and order.phase == RunPhase.BLOCKED else ""


def absent(target: DistributionTarget) -> bool:
    return target.desired == Desired.ABSENT
