"""Maintenance and recreation, from the working copy to the last guest."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from django.utils import timezone

from providers_app import health
from providers_app.drivers import open_driver
from providers_app.models import Provider
from rasweb.refusals import Refusal
from templates_app import distribution, guests, maintenance, recreation
from templates_app.models import GuestVM, RecreateRun, Template
from templates_app.states import GuestPhase, RunPhase, TemplatePhase
from templates_app.status import template_status
from tests.templates_app.conftest import BY, OK, Drain, Hosts, words


@pytest.fixture
def entered(template: Template, drain: Drain) -> Template:
    maintenance.enter(template, BY)
    drain()
    return fresh(template)


def fresh(template: Template) -> Template:
    return Template.objects.get(pk=template.pk)


def working_disk(template: Template) -> Path:
    copy = template_status(template)["working_copy"]
    assert copy is not None
    return Path(copy["disks"][0])


def change(template: Template) -> None:
    with working_disk(template).open("r+b") as disk:
        disk.seek(300_000)
        disk.write(b"an update was installed")


def leave(template: Template, choice: str, drain: Drain) -> Template:
    maintenance.leave(fresh(template), choice, BY)
    drain()
    return fresh(template)


def disk_of(hosts: Hosts, guest: GuestVM) -> bytes:
    [disk] = (hosts.path(guest.provider) / "guests" / guest.name).glob("disk0.*")
    return disk.read_bytes()


def test_maintenance_offers_a_working_copy_and_leaves_the_image_alone(
    hosts: Hosts, entered: Template
) -> None:
    assert entered.phase == TemplatePhase.MAINTENANCE
    [image] = hosts.images(entered.source_provider).values()
    assert working_disk(entered).read_bytes() == image
    change(entered)
    assert list(hosts.images(entered.source_provider).values()) == [image]


def test_everything_else_is_suspended_in_maintenance(
    hosts: Hosts, entered: Template, three: list[Provider]
) -> None:
    late = hosts.add("late")
    target = entered.targets.select_related("template", "provider").first()
    assert target is not None
    orders: list[Callable[[], object]] = [
        lambda: distribution.add_providers(entered, [late], BY),
        lambda: distribution.remove_providers(entered, [three[1]], BY),
        lambda: distribution.retry(target, BY),
        lambda: distribution.delete(entered, BY),
        lambda: distribution.set_concurrent(entered, 2, BY),
        lambda: guests.create(entered, three[0], 1, BY),
        lambda: recreation.begin(entered, BY),
    ]
    for order in orders:
        with pytest.raises(Refusal, match="in maintenance"):
            order()


def test_unchanged_content_makes_no_version_and_no_question(
    hosts: Hosts, entered: Template, drain: Drain
) -> None:
    guests_before = entered.versions.count()
    template = leave(entered, maintenance.NEW_VERSION, drain)
    assert template.phase == TemplatePhase.READY
    assert template.versions.count() == guests_before
    assert not RecreateRun.objects.exists()
    assert template.events.first().note == "Nothing changed; no new version."
    assert len(hosts.images(template.source_provider)) == 1
    assert hosts.hidden(template.source_provider) == [
        f".{name}.rasweb.json" for name in hosts.images(template.source_provider)
    ]


def test_other_hardware_alone_makes_a_new_version(hosts: Hosts, entered: Template, drain: Drain) -> None:
    file = working_disk(entered).with_name("vm.json")
    file.write_text(json.dumps({**json.loads(file.read_text()), "memory_mib": 4096, "vcpus": 4}))
    template = leave(entered, maintenance.NEW_VERSION, drain)
    old, new = template.versions.order_by("number")
    assert (new.definition["memory_mib"], new.definition["vcpus"]) == (4096, 4)
    assert new.digest == old.digest
    assert template.sealed_version == new
    assert set(words(template).values()) == {OK}
    assert all(len(set(hosts.images(target.provider).values())) == 1 for target in template.targets.all())


def test_discarding_deletes_the_working_copy_and_asks_nothing(
    hosts: Hosts, entered: Template, drain: Drain
) -> None:
    change(entered)
    disk = working_disk(entered)
    template = leave(entered, maintenance.DISCARD, drain)
    assert (template.phase, template.sealed_version.number) == (TemplatePhase.READY, 1)
    assert not disk.exists()


def test_a_new_version_distributes_itself_beside_the_old_one(
    hosts: Hosts, entered: Template, drain: Drain
) -> None:
    change(entered)
    wanted = working_disk(entered).read_bytes()
    template = leave(entered, maintenance.NEW_VERSION, drain)
    assert template.sealed_version.number == 2
    assert set(words(template).values()) == {OK}
    for target in template.targets.all():
        images = hosts.images(target.provider)
        assert len(images) == 2
        assert images[target.images.get(version=template.sealed_version).name] == wanted
    assert not (hosts.path(template.source_provider) / "vms/win11-maintenance").exists()


def test_entering_is_undone_when_the_source_refuses(hosts: Hosts, template: Template, drain: Drain) -> None:
    foreign = hosts.path(template.source_provider) / "vms/win11-maintenance"
    foreign.mkdir()
    (foreign / "disk0.raw").write_bytes(b"foreign")
    maintenance.enter(template, BY)
    drain()
    template = fresh(template)
    assert template.phase == TemplatePhase.READY
    assert template.error_code == "PATH_CONFLICT"
    assert (foreign / "disk0.raw").read_bytes() == b"foreign"


def test_leaving_without_the_source_loses_nothing(hosts: Hosts, entered: Template, drain: Drain) -> None:
    change(entered)
    hosts.take_away(entered.source_provider)
    maintenance.leave(fresh(entered), maintenance.NEW_VERSION, BY)
    drain()
    hosts.bring_back(entered.source_provider)
    template = fresh(entered)
    assert template.phase in (TemplatePhase.MAINTENANCE, TemplatePhase.EXITING)
    assert b"an update was installed" in working_disk(template).read_bytes()


@pytest.fixture
def peopled(template: Template, three: list[Provider], drain: Drain) -> Template:
    """A template with two guests on each of two hosts."""
    for provider in three[:2]:
        provider.refresh_from_db()
        guests.create(template, provider, 2, BY)
    drain()
    assert set(GuestVM.objects.values_list("phase", flat=True)) == {GuestPhase.READY}
    return fresh(template)


def updated(template: Template, drain: Drain) -> Template:
    maintenance.enter(template, BY)
    drain()
    change(fresh(template))
    return leave(template, maintenance.NEW_VERSION, drain)


def test_guests_are_cloned_from_the_image_of_their_own_host(hosts: Hosts, peopled: Template) -> None:
    for guest in peopled.guests.select_related("provider"):
        [image] = hosts.images(guest.provider).values()
        assert disk_of(hosts, guest) == image
    assert sorted(peopled.guests.values_list("name", flat=True)) == [f"win11-00{n}" for n in (1, 2, 3, 4)]


def test_a_changed_template_asks_and_touches_no_guest_until_told(
    hosts: Hosts, peopled: Template, drain: Drain
) -> None:
    before = {guest.pk: disk_of(hosts, guest) for guest in peopled.guests.select_related("provider")}
    template = updated(peopled, drain)
    run = recreation.live_run(template)
    assert run is not None
    assert run.phase == RunPhase.ASKED
    assert recreation.outdated(template) == 4
    assert {guest.pk: disk_of(hosts, guest) for guest in template.guests.select_related("provider")} == before


def test_the_question_is_worded_as_promised() -> None:
    assert recreation.QUESTION == (
        "All guest VMs must be recreated because the template has been modified. Do you want to recreate them now?"
    )


def test_yes_recreates_every_guest_from_the_new_version(
    hosts: Hosts, peopled: Template, drain: Drain
) -> None:
    template = updated(peopled, drain)
    recreation.begin(template, BY)
    drain()
    assert template.runs.get().phase == RunPhase.COMPLETED
    assert recreation.outdated(template) == 0
    for guest in template.guests.select_related("provider"):
        assert b"an update was installed" in disk_of(hosts, guest)


def test_one_silent_provider_blocks_and_is_named_and_nothing_is_touched(
    hosts: Hosts, peopled: Template, three: list[Provider], drain: Drain
) -> None:
    template = updated(peopled, drain)
    hosts.take_away(three[2])
    recreation.begin(template, BY)
    drain()
    run = template.runs.get()
    assert (run.phase, run.silent) == (RunPhase.BLOCKED, ["right"])
    assert recreation.outdated(template) == 4
    hosts.bring_back(three[2])
    recreation.begin(template, BY)
    drain()
    assert template.runs.get().phase == RunPhase.COMPLETED
    assert recreation.outdated(template) == 0


def test_recreating_later_needs_no_second_maintenance(peopled: Template, drain: Drain) -> None:
    template = updated(peopled, drain)
    recreation.defer(template, BY)
    assert template.runs.get().phase == RunPhase.DEFERRED
    assert recreation.outdated(template) == 4
    recreation.begin(template, BY)
    drain()
    assert recreation.outdated(template) == 0


def test_only_those_that_respond_may_be_recreated(
    hosts: Hosts, peopled: Template, three: list[Provider], drain: Drain
) -> None:
    template = updated(peopled, drain)
    hosts.take_away(three[1])
    recreation.begin(template, BY)
    drain()
    recreation.begin(template, BY, only_responding=True)
    drain()
    run = template.runs.get()
    assert run.phase == RunPhase.COMPLETED_WITH_ERRORS
    assert recreation.outdated(template) == 2
    assert set(run.items.filter(phase="skipped").values_list("guest__provider__name", flat=True)) == {"left"}


def test_a_guest_without_the_new_image_stays_as_it_was(
    hosts: Hosts, peopled: Template, three: list[Provider], drain: Drain
) -> None:
    maintenance.enter(peopled, BY)
    drain()
    change(fresh(peopled))
    hosts.take_away(three[1])
    for _ in range(3):
        hosts.check(three[1])
    template = leave(peopled, maintenance.NEW_VERSION, drain)
    recreation.begin(template, BY)
    drain()
    assert template.runs.get().silent == ["left"]
    hosts.bring_back(three[1])
    for guest in template.guests.filter(provider=three[1]).select_related("provider"):
        assert b"an update was installed" not in disk_of(hosts, guest)


def test_a_guest_can_be_deleted(hosts: Hosts, peopled: Template, drain: Drain) -> None:
    guest = peopled.guests.select_related("provider", "template").first()
    assert guest is not None
    folder = hosts.path(guest.provider) / "guests" / guest.name
    assert folder.exists()
    guests.delete(guest, BY)
    drain()
    assert not folder.exists()
    assert not GuestVM.objects.filter(pk=guest.pk).exists()


def test_a_guest_that_was_made_during_a_check_is_not_lost(
    template: Template, three: list[Provider], hosts: Hosts, drain: Drain
) -> None:
    address = three[1].address()
    began = timezone.now()
    with open_driver(address.kind, address.settings) as host:
        survey = host.survey()
    guests.create(template, three[1], 1, BY)
    drain()
    health.record(three[1], survey, began)
    drain()
    assert GuestVM.objects.get().phase == GuestPhase.READY


def test_a_guest_that_vanished_is_lost_and_can_be_recreated(
    hosts: Hosts, peopled: Template, drain: Drain
) -> None:
    guest = peopled.guests.select_related("provider", "template").first()
    assert guest is not None
    shutil.rmtree(hosts.path(guest.provider) / "guests" / guest.name)
    hosts.check(guest.provider)
    drain()
    guest = GuestVM.objects.select_related("provider", "template").get(pk=guest.pk)
    assert guest.phase == GuestPhase.LOST
    guests.recreate(guest, BY)
    drain()
    assert GuestVM.objects.get(pk=guest.pk).phase == GuestPhase.READY


def test_a_provider_with_guests_is_removed_only_together_with_them(
    hosts: Hosts, peopled: Template, three: list[Provider], drain: Drain
) -> None:
    with pytest.raises(Refusal, match="Guest VMs"):
        distribution.remove_providers(peopled, [three[1]], BY)
    distribution.remove_providers(peopled, [three[1]], BY, delete_guests=True)
    drain()
    assert peopled.guests.filter(provider=three[1]).count() == 0
    assert peopled.guests.count() == 2
    assert hosts.images(three[1]) == {}


def test_a_template_with_guests_is_not_deleted(peopled: Template) -> None:
    with pytest.raises(Refusal, match="Guest VMs"):
        distribution.delete(peopled, BY)


def test_old_versions_are_retired_when_nothing_uses_them(
    hosts: Hosts, template: Template, drain: Drain
) -> None:
    for step in range(3):
        maintenance.enter(fresh(template), BY)
        drain()
        with working_disk(fresh(template)).open("r+b") as disk:
            disk.write(f"update {step}".encode())
        leave(template, maintenance.NEW_VERSION, drain)
    template = fresh(template)
    assert template.sealed_version.number == 4
    for target in template.targets.all():
        assert {image.version.number for image in target.images.all()} == {3, 4}
        assert len(hosts.images(target.provider)) == 2


def test_an_older_version_can_be_made_current_again(hosts: Hosts, peopled: Template, drain: Drain) -> None:
    template = updated(peopled, drain)
    distribution.make_current(template.versions.get(number=1), BY)
    drain()
    template = fresh(template)
    assert template.sealed_version.number == 1
    assert set(words(template).values()) == {OK}
    assert recreation.outdated(template) == 0
