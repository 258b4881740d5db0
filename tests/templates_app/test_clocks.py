"""A wall clock that was set back: times of before lie ahead, and nothing waits for them."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone

from providers_app.models import Inventory, Provider
from templates_app import guests, places, removal, scrub
from templates_app.models import DistributionTarget, GuestVM, Template
from templates_app.models.target import LONGEST_PAUSE
from templates_app.models.work import CLOCKS_DIFFER
from templates_app.reconciler import Reconciler
from templates_app.states import Desired, GuestPhase, Phase
from tests.templates_app.conftest import BY, Drain, Hosts, target_on

JUMP = timedelta(hours=3)
PAUSE = timedelta(minutes=5)


def wait(target: DistributionTarget, pause: timedelta, **fields: object) -> None:
    assert target.advance(Phase.WAITING, next_try_at=timezone.now() + pause, **fields)


def test_a_retry_waits_for_its_pause_but_not_for_the_jump(template: Template, three: list[Provider]) -> None:
    wait(target_on(template, three[1]), PAUSE)
    assert places.waiting_templates() == set()
    wait(target_on(template, three[1]), JUMP)
    assert places.waiting_templates() == {template.pk}


def test_a_removal_waits_for_its_pause_but_not_for_the_jump(
    template: Template, three: list[Provider]
) -> None:
    wait(target_on(template, three[1]), PAUSE, desired=Desired.ABSENT)
    assert list(removal.due()) == []
    target = target_on(template, three[1])
    wait(target, JUMP)
    assert list(removal.due()) == [("remove", target.pk)]


@pytest.mark.parametrize(
    ("pause", "due"), [(LONGEST_PAUSE + CLOCKS_DIFFER / 2, False), (LONGEST_PAUSE + JUMP, True)]
)
def test_an_image_is_not_left_unread_for_a_whole_jump(
    template: Template, three: list[Provider], pause: timedelta, due: bool
) -> None:
    old = timezone.now() - timedelta(days=40)
    target = target_on(template, three[1])
    target.advance(Phase.INSTALLED, verified_at=old, next_try_at=timezone.now() + pause)
    assert bool(list(scrub.due())) == due


def lose(hosts: Hosts, template: Template, provider: Provider, ahead: timedelta) -> DistributionTarget:
    """Delete an image whose row was changed so far ahead, and look at the host."""
    DistributionTarget.objects.update(changed_at=timezone.now() + ahead)
    for file in (hosts.path(provider) / "images").glob("win11*"):
        file.unlink()
    hosts.check(provider)
    Reconciler().run()
    return target_on(template, provider)


def test_an_image_that_was_lost_after_the_jump_is_not_green(
    hosts: Hosts, template: Template, three: list[Provider]
) -> None:
    assert lose(hosts, template, three[1], JUMP).error_code == "CONTENT_LOST"


def test_a_machine_whose_clock_is_a_little_ahead_is_believed(
    hosts: Hosts, template: Template, three: list[Provider]
) -> None:
    assert lose(hosts, template, three[1], CLOCKS_DIFFER / 2).phase == Phase.INSTALLED


def test_what_was_read_before_the_jump_is_no_proof_of_a_loss(
    hosts: Hosts, template: Template, three: list[Provider]
) -> None:
    before = timezone.now() + JUMP
    Inventory.objects.update(images=[], read_at=before)
    DistributionTarget.objects.update(changed_at=before + PAUSE)
    Reconciler().run()
    assert target_on(template, three[1]).phase == Phase.INSTALLED


def test_a_guest_that_was_lost_after_the_jump_is_called_lost(
    hosts: Hosts, template: Template, three: list[Provider], drain: Drain
) -> None:
    three[0].refresh_from_db()
    [guest] = guests.create(template, three[0], 1, BY)
    drain()
    GuestVM.objects.update(changed_at=timezone.now() + JUMP)
    hosts.check(three[0])
    Inventory.objects.filter(provider=three[0]).update(guests=[])
    Reconciler().run()
    assert GuestVM.objects.get(pk=guest.pk).phase == GuestPhase.LOST
