"""Orders for guests that meet faults, and faults that meet them: nothing sticks, no other work waits."""

from __future__ import annotations

import shutil
import uuid
from collections import Counter
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django_q.models import OrmQ

from providers_app.drivers.errors import Refused
from providers_app.models import Provider
from templates_app import (
    copying,
    distribution,
    guests,
    maintenance,
    recreation,
    removal,
)
from templates_app.models import (
    DistributionTarget,
    GuestVM,
    ItemPhase,
    RecreateItem,
    Template,
)
from templates_app.reconciler import Reconciler
from templates_app.states import Desired, GuestPhase, Phase, RunPhase, TemplatePhase
from tests.templates_app.conftest import BY, Drain, Hosts, target_on
from tests.templates_app.test_maintenance import fresh, leave, peopled, updated

__all__ = ["peopled"]  # a fixture


def test_guests_that_wait_are_not_made_during_maintenance(
    template: Template, three: list[Provider], drain: Drain
) -> None:
    three[1].refresh_from_db()
    guests.create(template, three[1], 2, BY)
    OrmQ.objects.all().delete()
    maintenance.enter(template, BY)
    drain()
    assert fresh(template).phase == TemplatePhase.MAINTENANCE
    assert {guest.phase for guest in GuestVM.objects.all()} == {GuestPhase.CREATING}
    leave(fresh(template), maintenance.DISCARD, drain)
    assert {guest.phase for guest in GuestVM.objects.all()} == {GuestPhase.READY}


def test_a_maintenance_that_begins_just_before_a_guest_is_taken_keeps_it_waiting(
    template: Template, three: list[Provider]
) -> None:
    three[1].refresh_from_db()
    guests.create(template, three[1], 1, BY)
    late = GuestVM.objects.select_related("template", "provider").get()
    maintenance.enter(template, BY)
    assert not guests._take(late)
    assert GuestVM.objects.get().claim is None


def test_a_maintenance_that_begins_just_before_a_removal_keeps_it_waiting(
    template: Template, three: list[Provider]
) -> None:
    distribution.remove_providers(template, [three[1]], BY)
    late = target_on(template, three[1])
    maintenance.enter(template, BY)
    removal._remove(late)
    assert target_on(template, three[1]).phase == Phase.WAITING


def test_a_provider_that_is_added_again_just_before_its_removal_keeps_its_images_and_guests(
    hosts: Hosts, template: Template, three: list[Provider], drain: Drain
) -> None:
    distribution.remove_providers(template, [three[1]], BY)
    late = target_on(template, three[1])
    distribution.add_providers(template, [three[1]], BY)
    removal._remove(late)
    assert target_on(template, three[1]).phase == Phase.WAITING
    three[1].refresh_from_db()
    guests.create(template, three[1], 1, BY)
    assert not removal._claim(late)
    drain()
    assert GuestVM.objects.get().phase == GuestPhase.READY
    assert target_on(template, three[1]).phase == Phase.INSTALLED


def test_a_guest_that_can_not_be_deleted_ends_the_removal_of_its_provider(
    hosts: Hosts, peopled: Template, three: list[Provider], drain: Drain, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuses(guest: GuestVM) -> None:
        raise Refused("The location is read-only.", code="PERMISSION", action="Check the mount.")

    with monkeypatch.context() as patched:
        patched.setattr(guests, "_delete", refuses)
        distribution.remove_providers(peopled, [three[1]], BY, delete_guests=True)
        drain()
        target = target_on(peopled, three[1])
        assert (target.phase, target.desired, target.error_code) == (
            Phase.FAILED,
            Desired.ABSENT,
            "PERMISSION",
        )
        assert "could not be deleted: The location is read-only." in target.error_text
    distribution.retry(target, BY)
    drain()
    assert not peopled.targets.filter(provider=three[1]).exists()
    assert not peopled.guests.filter(provider=three[1]).exists()


def test_a_guest_that_was_never_made_is_deleted_though_its_name_is_taken(
    hosts: Hosts, template: Template, three: list[Provider], drain: Drain
) -> None:
    foreign = hosts.path(three[1]) / "guests" / "win11-001"
    foreign.mkdir()
    (foreign / "disk0.raw").write_bytes(b"x" * 512)
    three[1].refresh_from_db()
    guests.create(template, three[1], 1, BY)
    drain()
    guest = GuestVM.objects.get()
    assert (guest.phase, guest.error_code) == (GuestPhase.CREATE_FAILED, "PATH_CONFLICT")
    guests.delete(guest, BY)
    drain()
    assert not GuestVM.objects.exists()
    assert (foreign / "disk0.raw").exists()


def test_a_failed_deletion_leads_back_to_what_the_guest_was(
    template: Template, three: list[Provider], drain: Drain, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuses(guest: GuestVM) -> None:
        raise Refused("The location is read-only.", code="PERMISSION")

    version = template.current_version
    guest = GuestVM.objects.create(
        template=template, provider=three[1], version=version, name="g", phase=GuestPhase.CREATE_FAILED
    )
    monkeypatch.setattr(guests, "_delete", refuses)
    guests.delete(guest, BY)
    drain()
    guest.refresh_from_db()
    assert (guest.phase, guest.error_code) == (GuestPhase.CREATE_FAILED, "PERMISSION")


def test_many_waiting_guests_keep_no_other_work_waiting(
    template: Template, three: list[Provider], settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.WORKERS = 8
    version = template.current_version
    rows = [GuestVM(template=template, provider=three[1], version=version, name=f"g{n}") for n in range(300)]
    GuestVM.objects.bulk_create(rows)
    busy = GuestVM.objects.values_list("pk", flat=True)[:3]
    GuestVM.objects.filter(pk__in=list(busy)).update(claim=uuid.uuid4(), owner="x", phase="preparing")
    DistributionTarget.objects.filter(provider=three[2]).update(phase=Phase.WAITING)
    OrmQ.objects.all().delete()
    Reconciler()._ask()
    asked = Counter(message.task["func"].rpartition(".")[2] for message in OrmQ.objects.all())
    assert asked == {"guest": 1, "distribute": 1}
    assert list(copying.due())


def test_guests_never_take_the_last_workers(template: Template, three: list[Provider], settings: Any) -> None:
    settings.WORKERS = 3
    version = template.current_version
    for number, provider in enumerate(three):
        provider.refresh_from_db()
        GuestVM.objects.create(template=template, provider=provider, version=version, name=f"g{number}")
    first, second = GuestVM.objects.select_related("provider", "template")[:2]
    assert guests._take(first)
    assert not guests._take(second)


def test_a_dead_provider_does_not_hold_a_recreation_for_ever(
    hosts: Hosts, peopled: Template, three: list[Provider], drain: Drain
) -> None:
    template = updated(peopled, drain)
    recreation.begin(template, BY)
    run = recreation.live_run(template)
    assert run is not None
    OrmQ.objects.all().delete()
    recreation.verify(run.pk)
    hosts.take_away(three[1])
    for _ in range(3):
        hosts.check(three[1])
    drain()
    run.refresh_from_db()
    assert run.phase == RunPhase.RUNNING
    recreation.defer(template, BY)
    drain()
    run.refresh_from_db()
    assert run.phase == RunPhase.COMPLETED_WITH_ERRORS
    skipped = run.items.filter(phase=ItemPhase.SKIPPED)
    assert {item.text for item in skipped} == {"Left for later."}
    maintenance.enter(fresh(template), BY)


def test_a_removal_that_is_owed_blocks_no_recreation(
    hosts: Hosts, peopled: Template, three: list[Provider], drain: Drain
) -> None:
    template = updated(peopled, drain)
    template.guests.filter(provider=three[2]).delete()
    hosts.take_away(three[2])
    for _ in range(3):
        hosts.check(three[2])
    distribution.remove_providers(template, [three[2]], BY)
    recreation.begin(template, BY)
    drain()
    assert template.runs.get().phase == RunPhase.COMPLETED


def test_a_guest_that_is_lost_is_not_switched(hosts: Hosts, peopled: Template, three: list[Provider]) -> None:
    guest = peopled.guests.select_related("provider").all()[0]
    GuestVM.objects.filter(pk=guest.pk).update(wanted_power="on")
    shutil.rmtree(hosts.path(guest.provider) / "guests" / guest.name)
    hosts.check(guest.provider)
    Reconciler()._observe()
    guest.refresh_from_db()
    assert (guest.phase, guest.wanted_power) == (GuestPhase.LOST, "")
    assert ("guest", guest.pk) not in list(guests.due())
    guests.work(guest.pk)


def test_an_old_error_is_gone_after_a_start_that_worked(
    hosts: Hosts, template: Template, simulator: Provider, drain: Drain
) -> None:
    [guest] = guests.create(template, simulator, 1, BY)
    drain()
    for fault, said in (("refuse=power", "REFUSED"), ("", "")):
        (hosts.path(simulator) / "faults").write_text(fault)
        guests.switch(GuestVM.objects.select_related("template", "provider").get(), True, BY)
        drain()
        guest.refresh_from_db()
        assert (guest.phase, guest.error_code) == (GuestPhase.READY, said)
    assert (guest.power, guest.error_text, guest.error_action) == ("on", "", "")


def test_a_recreation_asks_no_more_of_the_database_for_more_guests(
    peopled: Template, three: list[Provider], drain: Drain
) -> None:
    template = updated(peopled, drain)
    run = recreation.live_run(template)
    assert run is not None
    type(run).objects.filter(pk=run.pk).update(phase=RunPhase.RUNNING)
    version = template.versions.order_by("number")[0]

    def queries(count: int) -> int:
        for number in range(count):
            name = f"z{count}-{number}"
            guest = GuestVM.objects.create(
                template=template, provider=three[1], version=version, name=name, phase=GuestPhase.RECREATING
            )
            RecreateItem.objects.create(run=run, guest=guest, guest_name=name, phase=ItemPhase.RUNNING)
        with CaptureQueriesContext(connection) as asked:
            recreation.pace()
        return len(asked)

    assert queries(2) == queries(20)


def test_guests_of_a_template_with_the_longest_name_get_a_name_that_fits(
    template: Template, three: list[Provider]
) -> None:
    Template.objects.filter(pk=template.pk).update(name="w" * 63)
    [guest] = guests.create(template, three[0], 1, BY)
    assert guest.name == f"{'w' * 59}-001"
