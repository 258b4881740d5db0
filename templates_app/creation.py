"""Creating a template: what the wizard orders, and what is checked before it begins."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from django.db import transaction

from providers_app import health
from providers_app.drivers.base import Can
from providers_app.models import Inventory, Provider
from rasweb.refusals import Refusal, bad_input_refused
from templates_app import queue
from templates_app.distribution import new_target
from templates_app.gate import changed_meanwhile
from templates_app.models import CloneMethod, Event, Template
from templates_app.models.work import no_error
from templates_app.states import Intent, TemplatePhase


@dataclass(frozen=True)
class NewTemplate:
    """What the wizard asks for."""

    name: str
    source_provider: Provider
    source_vm: str
    clone_method: str = CloneMethod.FULL
    targets: Collection[Provider] = field(default_factory=tuple)
    multi_provider: bool = True
    max_concurrent: int = 4


def create(new: NewTemplate, by: str) -> Template:
    """Begin a template: its first version is made from the source VM, then distributed."""
    _check_source(new)
    template = Template(
        name=new.name,
        source_provider=new.source_provider,
        source_vm=new.source_vm,
        clone_method=new.clone_method,
        multi_provider=new.multi_provider,
        max_concurrent=new.max_concurrent,
        created_by=by,
    )
    with bad_input_refused("A template with this name exists already."), transaction.atomic():
        template.full_clean()
        template.save()
        Event.record(
            template, "", template.phase, by=by, note=f"From {new.source_vm} on {new.source_provider}."
        )
        for provider in {new.source_provider, *(new.targets if new.multi_provider else ())}:
            new_target(template, provider, Intent.DISTRIBUTING, by)
        template.announce()
    queue.soon("create", template.pk)
    return template


def retry(template: Template, by: str) -> None:
    """Begin a template again whose creation failed."""
    if template.phase != TemplatePhase.CREATE_FAILED:
        raise Refusal(f"The creation of {template} did not fail.", "NOT_FAILED")
    if not template.advance(TemplatePhase.CREATING, "Retry.", by, **no_error()):
        raise changed_meanwhile(template)
    queue.soon("create", template.pk)


def _check_source(new: NewTemplate) -> None:
    provider = new.source_provider
    health.require(provider)
    inventory = Inventory.objects.filter(provider=provider).first()
    vms = {vm["name"]: vm for vm in (inventory.vms if inventory else [])}
    vm = vms.get(new.source_vm)
    if vm is None:
        raise Refusal(
            f"There is no VM “{new.source_vm}” on {provider}.",
            "SOURCE_MISSING",
            "Check the provider and choose again.",
        )
    if vm["problem"]:
        raise Refusal(f"{new.source_vm} can not become a template: {vm['problem']}", "PREREQUISITE")
    if vm["power"] == "on":
        raise Refusal(f"{new.source_vm} is running.", "VM_RUNNING", "Shut it down first.")
    if vm["mark"]:
        raise Refusal(
            f"{new.source_vm} is the working copy of a template.", "PREREQUISITE", "Choose a VM of your own."
        )
    if new.clone_method == CloneMethod.LINKED:
        lacking = [
            each.name for each in {provider, *new.targets} if Can.LINKED_CLONE not in each.capabilities
        ]
        if lacking:
            raise Refusal(
                f"Linked clones are not possible on {', '.join(sorted(lacking))}.",
                "PREREQUISITE",
                "Choose full clones, or other providers.",
            )
