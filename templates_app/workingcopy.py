"""Whether the working copy of a template in maintenance runs, and shutting it down for the administrator.

A guest system takes its time to shut down, or refuses. So an order is over when the host has passed it on; what became
of it is seen by the checks of the host, which come in quick succession for a while.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any

from django.db.models import QuerySet
from django.utils import timezone

from providers_app import health
from providers_app.connections import CALL_SECONDS
from providers_app.drivers.base import Can
from providers_app.drivers.errors import DriverError
from providers_app.hostcalls import Stopped
from providers_app.models import Inventory, Provider
from rasweb.refusals import Refusal
from rasweb.rows import standing
from templates_app import queue
from templates_app.leases import ask
from templates_app.models import Template
from templates_app.models.work import error, no_error, older_than
from templates_app.states import TemplatePhase

LOOK_SECONDS = 2.0
WATCHED_SECONDS = 600.0
UNKNOWN = "unknown"
SAID = {"on": "is running", "off": "is off"}


def power(template: Template) -> str:
    """On, off or unknown, as last seen. Hosts without a power switch do not tell off from on."""
    seen = str(template.maintenance.get("power") or _seen(template))
    return seen if seen == "on" or may_switch(template) else UNKNOWN


def order_of(template: Template) -> dict[str, Any] | None:
    """The order to shut down that was not yet fulfilled: ``since``, ``by``, ``force``, and whether it was passed on."""
    stop: dict[str, Any] | None = template.maintenance.get("stop")
    return stop


def may_switch(template: Template) -> bool:
    return Can.POWER in template.source_provider.capabilities


def shut_down(template: Template, by: str, *, force: bool = False) -> None:
    """Order the working copy to be shut down; with ``force`` to be switched off, whatever it is doing."""
    check_idle(template)
    health.require(template.source_provider)
    vm, host = template.maintenance.get("vm"), template.source_provider
    if not may_switch(template):
        text = f"{host} has no power switch."
        raise Refusal(text, "PREREQUISITE", f"Shut “{vm}” down with the host's own tools.")
    stop = {"force": force, "since": timezone.now().isoformat(), "by": by, "passed_on": False}
    note = f"“{vm}” is to be switched off." if force else f"“{vm}” is to shut down."
    maintenance = {**template.maintenance, "stop": stop}
    if not template.advance(TemplatePhase.MAINTENANCE, note, by, maintenance=maintenance, **no_error()):
        raise Refusal(f"{template} was changed by somebody else just now.", "CONFLICT", "Look at it again.")
    queue.soon("shut_down", template.pk)


def require_off(template: Template) -> None:
    """Refuse while the working copy runs or can not be sealed. What was last seen is looked at again first."""
    check_idle(template)
    if power(template) != "on" and not _problem(template):
        return
    health.check([template.source_provider])
    vm, host = template.maintenance.get("vm"), template.source_provider
    if _seen(template) == "on":
        action = "Shut it down first." if may_switch(template) else "Shut it down with the host's own tools."
        raise Refusal(f"“{vm}” is running on {host}.", "VM_RUNNING", action)
    if problem := _problem(template):
        raise Refusal(f"“{vm}” on {host} can not be sealed: {problem}", "PREREQUISITE")


def check_idle(template: Template) -> None:
    """Refuse while an order is being passed on: it takes a moment."""
    if template.phase != TemplatePhase.MAINTENANCE:
        raise Refusal(f"{template} is not in maintenance.", "NOT_IN_MAINTENANCE")
    if template.claim is not None:
        raise Refusal(f"The working copy of {template} is being shut down.", "BUSY", "Wait a moment.")


def due() -> Iterable[tuple[str, int]]:
    """The orders that wait for a worker."""
    if not _in_maintenance.pks():
        return
    ordered = Template.objects.filter(maintenance__stop__passed_on=False, phase=TemplatePhase.MAINTENANCE)
    ready = ordered.filter(claim=None, source_provider__in=Provider.objects.available())
    for pk in ready.values_list("pk", flat=True):
        yield "shut_down", pk


def carry_out(pk: int) -> None:
    """Pass an order on to the host."""
    template = Template.objects.select_related("source_provider").filter(pk=pk).first()
    stop = order_of(template) if template else None
    if template is None or stop is None or stop["passed_on"]:
        return
    if not template.source_provider.available or not template.take(TemplatePhase.MAINTENANCE):
        return
    mark, known = template.mark("working-copy"), {**template.maintenance, "stop": {**stop, "passed_on": True}}
    try:
        ask(
            template,
            template.source_provider,
            "shut_down",
            timeout=CALL_SECONDS,
            name=known["vm"],
            mark=mark,
            force=stop["force"],
        )
    except Stopped:
        template.release(TemplatePhase.MAINTENANCE, "Stopped; another worker begins again.")
    except DriverError as fault:
        del known["stop"]
        cause = error(fault.code, fault.text, fault.action)
        template.release(TemplatePhase.MAINTENANCE, maintenance=known, **cause)
    else:
        template.release(TemplatePhase.MAINTENANCE, maintenance=known)


@standing
def _in_maintenance() -> QuerySet[Template]:
    return Template.objects.filter(phase=TemplatePhase.MAINTENANCE)


def watch() -> None:
    """Have the hosts checked soon on which a working copy shuts down."""
    soon = timezone.now() + timedelta(seconds=LOOK_SECONDS)
    for template in _in_maintenance():
        stop = order_of(template)
        if not stop or not stop["passed_on"]:
            continue
        age = timezone.now() - datetime.fromisoformat(stop["since"])
        if age.total_seconds() < WATCHED_SECONDS:
            Provider.objects.filter(pk=template.source_provider_id, next_check_at__gt=soon).update(
                next_check_at=soon
            )


def observe(inventory: Inventory) -> None:
    """Take note of what a check saw of the working copies of its host."""
    for template in _in_maintenance():
        if template.source_provider_id != inventory.provider_id or template.claim is not None:
            continue
        if not Template.objects.filter(older_than(inventory.read_at), pk=template.pk).exists():
            continue
        seen, known = _of(inventory, template), dict(template.maintenance)
        done = seen != "on" and (order_of(template) or {}).get("passed_on")
        if seen == known.get("power", "off") and not done:
            continue
        known["power"] = seen
        if done:
            del known["stop"]
        template.advance(
            TemplatePhase.MAINTENANCE,
            f"“{known.get('vm')}” {SAID.get(seen, 'was not seen')}.",
            maintenance=known,
        )


def _seen(template: Template) -> str:
    inventory = _inventory(template)
    return _of(inventory, template) if inventory else UNKNOWN


def _problem(template: Template) -> str:
    """Why nothing can be made of the working copy, as last seen; empty when it can."""
    inventory = _inventory(template)
    return _of(inventory, template, "problem", "") if inventory else ""


def _inventory(template: Template) -> Inventory | None:
    return Inventory.objects.filter(provider=template.source_provider_id).first()


def _of(inventory: Inventory, template: Template, what: str = "power", other: str = UNKNOWN) -> str:
    name = template.maintenance.get("vm")
    return next((str(vm[what]) for vm in inventory.vms if vm["name"] == name), other)
