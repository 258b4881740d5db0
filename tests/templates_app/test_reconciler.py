"""What the reconciler tidies up by itself."""

from __future__ import annotations

import os
import time
from datetime import timedelta

import pytest
from django.utils import timezone
from django_q.models import OrmQ

from providers_app.models import Inventory, Provider
from templates_app import guests, lanes, scrub
from templates_app.models import GuestVM, Template
from templates_app.reconciler import Reconciler
from templates_app.states import GuestPhase, Phase, TemplatePhase
from tests.templates_app.conftest import BY, Drain, Hosts, target_on


def test_manifests_that_no_version_names_are_deleted_after_a_day(template: Template) -> None:
    folder = lanes.folder("manifests")
    [used] = [disk.manifest for disk in template.sealed_version.disk_versions]
    old = time.time() - 2 * lanes.UNUSED_SECONDS
    for name in (used, "orphan", "young"):
        (folder / name).touch()
        if name != "young":
            os.utime(folder / name, (old, old))
    lanes.sweep_manifests()
    assert {path.name for path in folder.iterdir()} == {used, "young"}


def test_journals_that_no_unfinished_work_names_are_deleted_after_a_day(
    template: Template, three: list[Provider]
) -> None:
    folder = lanes.folder("journals")
    installed, waiting = target_on(template, three[1]), target_on(template, three[2])
    assert waiting.advance(Phase.WAITING)
    sealing = Template.objects.create(name="other", source_provider=three[0], source_vm="other")
    used = {f"target-{waiting.pk}-v1-0.journal", f"template-{sealing.pk}-v1-0.journal"}
    unused = {
        f"target-{waiting.pk}-v2-0.journal",
        f"target-{waiting.pk}-v11-0.journal",
        f"target-{waiting.pk}1-v1-0.journal",
        f"target-{installed.pk}-v1-0.journal.part",
        f"template-{template.pk}-v1-0.journal",
    }
    old = time.time() - 2 * lanes.UNUSED_SECONDS
    for name in (*used, *unused):
        (folder / name).touch()
        os.utime(folder / name, (old, old))
    (folder / "target-0-v1-0.journal").touch()
    lanes.sweep_journals()
    assert {path.name for path in folder.iterdir()} == {*used, "target-0-v1-0.journal"}


def test_a_failed_creation_is_removed_after_its_time_for_inspection(
    template: Template, three: list[Provider], drain: Drain
) -> None:
    three[0].refresh_from_db()
    [guest] = guests.create(template, three[0], 1, BY)
    guest.advance(GuestPhase.CREATE_FAILED, failed_at=timezone.now() - timedelta(days=8))
    drain()
    assert not GuestVM.objects.exists()


def test_one_row_that_makes_trouble_keeps_nothing_else_waiting(
    ordered: Template, monkeypatch: pytest.MonkeyPatch
) -> None:
    OrmQ.objects.all().delete()
    once = Reconciler()
    monkeypatch.setattr(once, "_observed", None)
    once.run()
    assert OrmQ.objects.count() == 1


def test_a_poisoned_inventory_does_not_stop_the_work(hosts: Hosts, ordered: Template, drain: Drain) -> None:
    Inventory.objects.update(images=[{"no": "name"}], guests=[{"no": "name"}])
    drain()
    assert Template.objects.get(pk=ordered.pk).phase == TemplatePhase.READY


def test_an_inventory_that_can_not_be_read_hides_nothing_of_other_hosts(
    hosts: Hosts, template: Template, three: list[Provider]
) -> None:
    for file in (hosts.path(three[2]) / "images").glob("win11*"):
        file.unlink()
    hosts.check(three[2])
    Inventory.objects.filter(provider__in=three[:2]).update(images=[{"no": "name"}])
    Reconciler().run()
    assert target_on(template, three[2]).error_code == "CONTENT_LOST"


def test_images_to_read_again_are_not_looked_for_in_every_pass(
    db: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[int] = []

    def due() -> list[tuple[str, int]]:
        looks.append(1)
        return []

    monkeypatch.setattr(scrub, "due", due)
    looking = Reconciler()
    for _ in range(3):
        looking.run()
    assert len(looks) == 1
