"""A sealing whose engine gets into trouble."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from providers_app import connections
from providers_app.models import Provider
from templates_app import creation, lanes, maintenance, sealing
from templates_app.models import Event, Template
from templates_app.states import TemplatePhase
from tests.product import wait_for
from tests.templates_app.conftest import BY, Drain, Hosts, engine


@pytest.fixture
def source(hosts: Hosts) -> Provider:
    """A host with a VM that can go wrong."""
    values = {"path": str(hosts.root / "sim"), "vms": 1, "size_mib": 1}
    source = connections.add("sim", "simulator", values)
    hosts.check(source)
    return source


def faults(hosts: Hosts, source: Provider, words: str) -> None:
    (hosts.path(source) / "faults").write_text(words)


def freeze_engine() -> None:
    os.kill(wait_for(engine, what="the engine"), signal.SIGSTOP)


def test_an_engine_that_falls_silent_is_ended_and_sealing_begins_again(
    ordered: Template, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lanes, "BEAT_SECONDS", 0.05)
    monkeypatch.setattr(lanes, "ENGINE_SILENT_SECONDS", 0.5)
    freezing = threading.Thread(target=freeze_engine)
    freezing.start()
    sealing.create(ordered.pk)
    freezing.join()
    template = Template.objects.get(pk=ordered.pk)
    assert (template.phase, template.claim) == (TemplatePhase.CREATING, None)
    assert Event.objects.filter(note="Stopped; another worker begins again.").exists()
    monkeypatch.undo()
    sealing.create(ordered.pk)
    assert Template.objects.get(pk=ordered.pk).phase == TemplatePhase.READY


def test_a_disk_that_crashes_the_engine_fails_the_creation(
    hosts: Hosts, source: Provider, drain: Drain
) -> None:
    faults(hosts, source, "crash=open_source")
    made = creation.create(creation.NewTemplate("win11", source, "sample-1"), BY)
    drain()
    template = Template.objects.get(pk=made.pk)
    assert (template.phase, template.error_code) == (TemplatePhase.CREATE_FAILED, "ENGINE_LOST")
    assert template.error_action
    faults(hosts, source, "")
    creation.retry(template, BY)
    drain()
    assert Template.objects.get(pk=made.pk).phase == TemplatePhase.READY


def test_a_working_copy_that_crashes_the_engine_can_still_be_discarded(
    hosts: Hosts, source: Provider, drain: Drain
) -> None:
    made = creation.create(creation.NewTemplate("win11", source, "sample-1"), BY)
    drain()
    maintenance.enter(Template.objects.get(pk=made.pk), BY)
    drain()
    faults(hosts, source, "crash=open_source")
    maintenance.leave(Template.objects.get(pk=made.pk), maintenance.NEW_VERSION, BY)
    drain()
    template = Template.objects.get(pk=made.pk)
    assert (template.phase, template.error_code) == (TemplatePhase.MAINTENANCE, "ENGINE_LOST")
    maintenance.leave(template, maintenance.DISCARD, BY)
    drain()
    template = Template.objects.get(pk=made.pk)
    assert (template.phase, template.error_code) == (TemplatePhase.READY, "")
