"""A sealing whose engine gets into trouble."""

from __future__ import annotations

import signal
import threading

import pytest
from django.db import connection, transaction
from django.db.models.signals import post_save

from providers_app import connections
from providers_app.drivers import Image, open_driver
from providers_app.models import Provider
from templates_app import creation, distribution, lanes, maintenance, removal, sealing
from templates_app.models import Event, Template
from templates_app.states import TemplatePhase
from tests.product import wait_for
from tests.templates_app.conftest import BY, Drain, Hosts, at_birth, engine


@pytest.fixture
def source(hosts: Hosts) -> Provider:
    """A host with a VM that can go wrong."""
    values = {"path": str(hosts.root / "sim"), "vms": 1, "size_mib": 1}
    source = connections.add("sim", "simulator", values)
    hosts.check(source)
    return source


def faults(hosts: Hosts, source: Provider, words: str) -> None:
    (hosts.path(source) / "faults").write_text(words)


def test_an_engine_that_falls_silent_is_ended_and_sealing_begins_again(
    ordered: Template, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lanes, "BEAT_SECONDS", 0.05)
    monkeypatch.setattr(lanes, "ENGINE_SILENT_SECONDS", 0.5)
    at_birth(monkeypatch, lambda engine: engine.send_signal(signal.SIGSTOP))
    sealing.create(ordered.pk)
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


@pytest.mark.django_db(transaction=True)
def test_a_template_that_is_deleted_while_it_is_created_goes_when_its_worker_has_let_go(
    hosts: Hosts, source: Provider, drain: Drain
) -> None:
    faults(hosts, source, "hang=copy")
    template = creation.create(creation.NewTemplate("win11", source, "sample-1"), BY)
    target = template.targets.get()
    seen: list[tuple[str, str]] = []

    def delete() -> None:
        wait_for(lambda: staged(source), what="a part of the image")
        distribution.delete(template, BY)
        removal.work(target.pk)
        target.refresh_from_db()
        seen.append((target.phase, target.error_text))
        connection.close()

    deleting = threading.Thread(target=delete)
    deleting.start()
    sealing.create(template.pk)
    deleting.join()
    assert seen == [("waiting", "")]
    template.refresh_from_db()
    assert (template.phase, template.claim) == (TemplatePhase.DELETING, None)
    drain()
    assert not Template.objects.exists()
    assert not staged(source)


@pytest.mark.django_db(transaction=True)
def test_a_worker_whose_source_is_forgotten_with_its_template_lets_go(hosts: Hosts, source: Provider) -> None:
    faults(hosts, source, "hang=copy")
    template = creation.create(creation.NewTemplate("win11", source, "sample-1"), BY)

    def forget() -> None:
        wait_for(lambda: staged(source), what="a part of the image")
        with transaction.atomic():
            distribution.delete(template, BY)
            distribution.forget(source, BY)
        connection.close()

    forgetting = threading.Thread(target=forget)
    forgetting.start()
    sealing.create(template.pk)
    forgetting.join()
    assert not Template.objects.exists()
    assert not engine()


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("words", ["refuse=survey", "refuse=copy", ""])
def test_a_worker_that_sees_too_late_that_its_template_is_deleted_lets_go(
    hosts: Hosts, source: Provider, drain: Drain, words: str
) -> None:
    template = creation.create(creation.NewTemplate("win11", source, "sample-1"), BY)
    faults(hosts, source, words)

    def delete(instance: Event, **_: object) -> None:
        if instance.from_phase == instance.to_phase == TemplatePhase.CREATING:
            transaction.on_commit(lambda: distribution.delete(template, BY))

    post_save.connect(delete, sender=Event)
    sealing.create(template.pk)
    post_save.disconnect(delete, sender=Event)
    template.refresh_from_db()
    assert (template.phase, template.claim) == (TemplatePhase.DELETING, None)
    faults(hosts, source, "")
    drain()
    assert not Template.objects.exists()


def staged(source: Provider) -> tuple[Image, ...]:
    with open_driver(source.kind, source.address().settings) as host:
        return host.survey().staged
