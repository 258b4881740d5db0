"""Templates, targets and guests as plain data, with exactly the words of the pages."""

from __future__ import annotations

from typing import Any

from templates_app import recreation, states, timing, workingcopy
from templates_app.models import DistributionTarget, GuestVM, Template
from templates_app.models.target import PublishedImage
from templates_app.states import Phase, State, Word


def template_status(template: Template) -> dict[str, Any]:
    """The status of a template and of each of its targets. Sizes in bytes, ``rate`` in bytes per second."""
    targets = list(template.targets.select_related("provider", "wanted_version", "installed_version"))
    return {
        "template": template.name,
        "status": template.get_phase_display(),
        "distribution": distribution_word(template, targets),
        "version": template.current_version.number if template.current_version else None,
        "counts": counts(targets),
        "guests": template.guests.count(),
        "outdated_guests": recreation.outdated(template),
        "recreation": _recreation(template),
        "working_copy": _working_copy(template),
        "error": _error(template),
        "targets": [target_status(target) for target in targets],
    }


def target_status(target: DistributionTarget) -> dict[str, Any]:
    images = list(target.held(target.installed_version))
    return {
        "provider": target.provider.name,
        "state": str(target.state.value),
        "progress": str(target.progress.value),
        "percent": target.percent,
        "bytes_done": target.bytes_done,
        "bytes_total": target.bytes_total,
        "rate": target.rate,
        "timing": timing.summary(target.timing),
        "installed_version": target.installed_version.number if target.installed_version else None,
        "image": target.provider.location(images[0].ref) if images else None,
        "digest": images[0].digest if images else None,
        "images": [_image(target, image) for image in images],
        "error": _error(target),
    }


def guest_status(guest: GuestVM) -> dict[str, Any]:
    return {
        "name": guest.name,
        "template": guest.template.name,
        "provider": guest.provider.name,
        "version": guest.version.number,
        "outdated": guest.outdated,
        "state": guest.get_phase_display(),
        "power": guest.power,
        "ref": guest.provider.location(guest.ref) if guest.ref else None,
        "error": _error(guest),
    }


def distribution_word(template: Template, targets: list[DistributionTarget]) -> str:
    """The Distribution column."""
    if not template.multi_provider:
        return states.NOT_MULTI_PROVIDER
    return str(states.distribution(target.progress for target in targets))


def counts(targets: list[DistributionTarget]) -> dict[str, int]:
    """How many targets are how; counted, never incremented."""
    words = [target.progress for target in targets]
    return {
        "total": len(targets),
        "ok": words.count(Word.OK),
        "distributing": words.count(Word.DISTRIBUTING),
        "adding": words.count(Word.ADDING),
        "removing": words.count(Word.REMOVING),
        "failed": words.count(Word.FAILED),
        "not_available": sum(target.state == State.NOT_AVAILABLE for target in targets),
        "running": sum(target.at_work for target in targets),
        "waiting": sum(target.phase == Phase.WAITING for target in targets),
    }


def _recreation(template: Template) -> dict[str, Any] | None:
    run = recreation.live_run(template) or template.runs.first()
    if run is None:
        return None
    phases = list(run.items.values_list("phase", flat=True))
    return {
        "state": run.get_phase_display(),
        "version": run.version.number,
        "silent": run.silent,
        "counts": {phase: phases.count(phase) for phase in ("todo", "running", "done", "failed", "skipped")},
    }


def _working_copy(template: Template) -> dict[str, Any] | None:
    if "ref" not in template.maintenance:
        return None
    locate = template.source_provider.location
    disks = [locate(ref) for ref in template.maintenance["disks"]]
    return {
        "vm": template.maintenance["vm"],
        "power": workingcopy.power(template),
        "location": locate(template.maintenance["ref"]),
        "disks": disks,
    }


def _image(target: DistributionTarget, image: PublishedImage) -> dict[str, Any]:
    where = target.provider.location(image.ref)
    return {"disk": image.disk, "image": where, "digest": image.digest, "size": image.size}


def _error(row: DistributionTarget | Template | GuestVM) -> dict[str, str] | None:
    if not row.error_code:
        return None
    return {"code": row.error_code, "text": row.error_text, "action": row.error_action}
