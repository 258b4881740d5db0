"""What is staged on hosts for nobody any more: other attempts overtook it, or another version is wanted by now."""

from __future__ import annotations

import logging

from providers_app import health
from providers_app.drivers.base import Mark
from providers_app.drivers.errors import DriverError, Unreachable
from providers_app.hostcalls import call
from providers_app.models import Installation, Inventory
from templates_app import lanes
from templates_app.models import DistributionTarget
from templates_app.removal import REMOVE_SECONDS
from templates_app.states import Desired, Phase, TemplatePhase

log = logging.getLogger(__name__)


def unwanted(inventory: Inventory) -> set[tuple[str, Mark]]:
    """Name and mark of what is ours and staged on a host, but not for what a target has yet to get there.

    What belongs to work under way, to a removal or to a template that is not ready is left to these. No claim is
    needed: an engine holds what it fills, a host discards nothing that is held, and what is lost is sent again.
    """
    marked = [(image["name"], Mark(**image["mark"])) for image in inventory.staged if image.get("mark")]
    ours = {(name, mark) for name, mark in marked if mark.installation == Installation.key()}
    if not ours:
        return set()
    targets = DistributionTarget.objects.filter(provider=inventory.provider_id)
    wanted: set[str] = set()
    busy: set[str] = set()
    for target in targets.select_related("template", "wanted_version"):
        if _is_busy(target):
            busy.add(target.template.mark().owner)
        elif target.wanted_version and target.phase != Phase.INSTALLED:
            wanted.update(lanes.image_names(target))
    return {(name, mark) for name, mark in ours if name not in wanted and mark.owner not in busy}


def _is_busy(target: DistributionTarget) -> bool:
    leaving = target.cancel or target.desired == Desired.ABSENT
    return leaving or target.claim is not None or target.template.phase != TemplatePhase.READY


def discard(pk: int) -> None:
    """Discard it on one provider. What a process still holds stays there until a later check sees it again."""
    inventory = Inventory.objects.select_related("provider").filter(pk=pk).first()
    if inventory is None or not inventory.provider.available:
        return
    provider = inventory.provider
    for name, mark in sorted(unwanted(inventory), key=str):
        try:
            call(provider.address(), "discard", timeout=REMOVE_SECONDS, name=name, mark=mark)
        except Unreachable as fault:
            health.suspect(provider, fault.code, fault.text)
            return
        except DriverError as fault:
            log.info("%s: what is staged for %s stays for now: %s", provider, name, fault.text)
        else:
            log.info("%s: discarded what was staged for %s", provider, name)
