"""A recreation under way that is left for later, or that another order overtakes."""

from __future__ import annotations

from collections import Counter

import pytest
from django_q.models import OrmQ

from providers_app.models import Provider
from templates_app import distribution, guests, maintenance, recreation
from templates_app.models import GuestVM, ItemPhase, PublishedImage, RecreateRun, Template
from templates_app.states import GuestPhase, RunPhase
from tests.templates_app.conftest import BY, Drain, Hosts
from tests.templates_app.test_maintenance import disk_of, fresh, peopled, updated

__all__ = ["peopled"]  # a fixture


@pytest.fixture
def listed(peopled: Template, drain: Drain) -> RecreateRun:
    """A recreation of four guests whose providers were verified."""
    run = recreation.begin(updated(peopled, drain), BY)
    recreation.verify(run.pk)
    run = RecreateRun.objects.select_related("template", "version").get(pk=run.pk)
    assert phases(run) == {(ItemPhase.TODO, GuestPhase.READY): 4}
    return run


@pytest.fixture
def run(listed: RecreateRun) -> RecreateRun:
    """Its guests are all ordered, and none of them begun."""
    recreation.pace()
    OrmQ.objects.all().delete()
    assert phases(listed) == {(ItemPhase.RUNNING, GuestPhase.RECREATING): 4}
    return listed


def phases(run: RecreateRun) -> Counter[tuple[str, str]]:
    return Counter(run.items.values_list("phase", "guest__phase"))


def first(run: RecreateRun) -> GuestVM:
    guest = run.template.guests.select_related("template", "provider").first()
    assert guest is not None
    return guest


def test_later_leaves_every_guest_alone_that_no_worker_has_in_hand(
    hosts: Hosts, run: RecreateRun, drain: Drain
) -> None:
    before = {guest.pk: disk_of(hosts, guest) for guest in run.template.guests.select_related("provider")}
    in_hand = first(run)
    assert guests._take(in_hand)
    recreation.defer(run.template, BY)
    assert phases(run) == {
        (ItemPhase.RUNNING, GuestPhase.RECREATING): 1,
        (ItemPhase.SKIPPED, GuestPhase.READY): 3,
    }
    in_hand.release(GuestPhase.RECREATING)
    drain()
    run.refresh_from_db()
    assert (run.phase, recreation.outdated(run.template)) == (RunPhase.COMPLETED_WITH_ERRORS, 3)
    after = {guest.pk: disk_of(hosts, guest) for guest in run.template.guests.select_related("provider")}
    assert {pk for pk in before if after[pk] != before[pk]} == {in_hand.pk}


def test_later_also_holds_for_guests_of_a_provider_that_died(
    hosts: Hosts, run: RecreateRun, three: list[Provider], drain: Drain
) -> None:
    hosts.take_away(three[1])
    for _ in range(3):
        hosts.check(three[1])
    drain()
    recreation.defer(run.template, BY)
    hosts.bring_back(three[1])
    hosts.check(three[1])
    drain()
    assert RecreateRun.objects.get().phase == RunPhase.COMPLETED_WITH_ERRORS
    assert recreation.outdated(run.template) == 2
    assert set(run.template.guests.values_list("phase", flat=True)) == {GuestPhase.READY}


def test_a_pass_that_began_before_the_rest_was_left_starts_none_of_it(listed: RecreateRun) -> None:
    stale = list(listed.items.select_related("guest__provider", "guest__template"))
    recreation.defer(listed.template, BY)
    for item in stale:
        recreation._start(listed, item)
        recreation._set(item, ItemPhase.FAILED)
    assert phases(listed) == {(ItemPhase.SKIPPED, GuestPhase.READY): 4}


def test_a_rollback_gives_no_guest_the_version_that_was_withdrawn(
    hosts: Hosts, run: RecreateRun, drain: Drain
) -> None:
    before = {guest.pk: disk_of(hosts, guest) for guest in run.template.guests.select_related("provider")}
    in_hand = first(run)
    assert guests._take(in_hand)
    distribution.make_current(run.template.versions.get(number=1), BY)
    run.refresh_from_db()
    assert run.phase == RunPhase.CANCELLED
    assert phases(run) == {
        (ItemPhase.SKIPPED, GuestPhase.RECREATING): 1,
        (ItemPhase.SKIPPED, GuestPhase.READY): 3,
    }
    in_hand.release(GuestPhase.RECREATING)
    drain()
    after = {guest.pk: disk_of(hosts, guest) for guest in run.template.guests.select_related("provider")}
    assert {pk for pk in before if after[pk] != before[pk]} == {in_hand.pk}
    assert recreation.outdated(fresh(run.template)) == 1
    maintenance.enter(fresh(run.template), BY)


@pytest.mark.parametrize("phase", [RunPhase.ASKED, RunPhase.VERIFYING])
def test_a_rollback_takes_back_a_recreation_that_did_not_begin(
    peopled: Template, drain: Drain, phase: RunPhase
) -> None:
    template = updated(peopled, drain)
    if phase == RunPhase.VERIFYING:
        recreation.begin(template, BY)
    assert template.runs.get().phase == phase
    distribution.make_current(template.versions.get(number=1), BY)
    drain()
    assert template.runs.get().phase == RunPhase.CANCELLED
    assert recreation.outdated(fresh(template)) == 0
    assert set(template.guests.values_list("version__number", flat=True)) == {1}


def test_a_guest_whose_host_is_to_get_another_version_is_not_waited_for(
    listed: RecreateRun, three: list[Provider]
) -> None:
    other = listed.template.targets.filter(provider=three[1])
    other.update(wanted_version=listed.template.versions.get(number=1))
    PublishedImage.objects.filter(target__in=other, version=listed.version).delete()
    recreation.pace()
    assert phases(listed) == {
        (ItemPhase.RUNNING, GuestPhase.RECREATING): 2,
        (ItemPhase.FAILED, GuestPhase.READY): 2,
    }
