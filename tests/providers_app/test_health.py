"""What checks write down about a host, and when they are made."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from django.utils import timezone

from providers_app import connections, health
from providers_app.drivers.base import VM, Survey
from providers_app.drivers.errors import Unreachable
from providers_app.models import Inventory, Provider, Reachability
from providers_app.status import word
from tests.product import wait_for
from tests.templates_app.conftest import Hosts

SILENT = Unreachable("The host does not answer.")


@pytest.fixture
def provider(hosts: Hosts) -> Provider:
    return hosts.add("one")


def answered(provider: Provider, *answers: Unreachable | Survey) -> Provider:
    for answer in answers:
        health.record(Provider.objects.get(pk=provider.pk), answer)
    return Provider.objects.get(pk=provider.pk)


def survey(provider: Provider) -> Survey:
    return Survey(host_id=provider.host_id)


def checked_at(provider: Provider) -> datetime:
    found = Provider.objects.get(pk=provider.pk).last_checked_at
    assert found is not None
    return found


def test_two_failed_checks_are_a_warning_and_the_third_is_not_available(provider: Provider) -> None:
    assert answered(provider, SILENT, SILENT).available
    assert word(answered(provider, SILENT)) == "Not available"


def test_a_failed_check_is_repeated_soon(provider: Provider) -> None:
    failed = answered(provider, SILENT)
    assert failed.next_check_at is not None
    assert failed.next_check_at < timezone.now() + timedelta(seconds=11)


def test_refused_work_makes_a_provider_not_available_at_once(provider: Provider) -> None:
    health.suspect(provider, "TIMEOUT", "It did not answer.")
    assert word(Provider.objects.get(pk=provider.pk)) == "Not available"


def test_one_good_check_brings_a_provider_back_at_once(provider: Provider) -> None:
    gone = answered(provider, SILENT, SILENT, SILENT)
    back = answered(gone, survey(provider))
    assert word(back) == "Ready"
    assert back.online_since is not None
    assert provider.online_since is not None
    assert back.online_since > provider.online_since


def test_a_fact_older_than_three_intervals_is_not_green(provider: Provider) -> None:
    provider.touch(last_seen_at=timezone.now() - timedelta(hours=1))
    assert provider.reachability == Reachability.ONLINE
    assert word(provider) == "Not available"


def test_a_disabled_provider_is_not_checked(provider: Provider) -> None:
    connections.enable(provider, False)
    assert health.due() == []
    connections.enable(provider, True)
    health.check(health.due())
    assert word(Provider.objects.get(pk=provider.pk)) == "Ready"


def test_two_sweeps_share_the_work(provider: Provider) -> None:
    Provider.objects.update(next_check_at=None)
    first, second = Provider.objects.get(), Provider.objects.get()
    assert [health._claim(first), health._claim(second)] == [True, False]


def test_an_older_check_that_ends_late_changes_nothing(provider: Provider) -> None:
    began = timezone.now()
    newer = replace(survey(provider), vms=(VM("golden", "golden"),))
    assert Inventory.objects.get().vms == []
    answered(provider, newer)
    for late in (survey(provider), SILENT):
        health.record(provider, late, began)
        assert [vm["name"] for vm in Inventory.objects.get().vms] == ["golden"]
        assert (provider.failures, provider.error_code) == (0, "")


def test_a_clock_that_was_set_back_does_not_stop_the_checks(provider: Provider) -> None:
    ahead = timezone.now() + timedelta(hours=1)
    provider.touch(last_checked_at=ahead, next_check_at=ahead)
    assert health.due() == [provider]
    assert answered(provider, SILENT).failures == 1


def test_the_answer_of_a_provider_that_was_deleted_meanwhile_is_dropped(provider: Provider) -> None:
    gone = Provider.objects.get()
    connections.delete(provider)
    health.record(gone, survey(gone))
    assert not Provider.objects.exists()


def test_a_check_that_is_asked_for_comes_soon(hosts: Hosts, provider: Provider) -> None:
    hosts.add("another")
    long_ago, later = timezone.now() - timedelta(hours=1), timezone.now() + timedelta(seconds=20)
    Provider.objects.update(last_checked_at=long_ago, next_check_at=later)
    health.check_soon({provider.pk, 4711})
    assert health.due() == [provider]


def test_however_often_a_check_is_asked_for_it_comes_every_few_seconds(provider: Provider) -> None:
    provider.touch(last_checked_at=timezone.now(), next_check_at=timezone.now() + timedelta(seconds=20))
    for _ in range(3):
        health.check_soon([provider.pk])
        assert health.due() == []
    provider.touch(last_checked_at=timezone.now() - timedelta(seconds=health.GAP_SECONDS))
    assert health.due() == [provider]


def test_what_is_asked_for_during_a_check_in_vain_is_not_put_off(provider: Provider) -> None:
    asked = timezone.now()
    provider.touch(next_check_at=asked)
    assert answered(provider, SILENT).next_check_at == asked


@pytest.mark.django_db(transaction=True)
def test_a_hanging_host_delays_no_other(hosts: Hosts) -> None:
    quick = hosts.add("quick")
    (hosts.root / "slow").mkdir()
    slow = connections.add("slow", "simulator", {"path": str(hosts.root / "slow"), "vms": 0})
    faults = hosts.root / "slow" / "faults"
    faults.write_text("hang=survey")
    for _ in range(2):
        before = checked_at(quick)
        Provider.objects.update(next_check_at=None)
        health.sweep()
        assert health.due() == []
        wait_for(lambda before=before: checked_at(quick) > before, what="a check of the quick host")  # type: ignore[misc]
        wait_for(lambda: quick.pk not in health._checking, what="its end")
    assert slow.pk in health._checking
    faults.unlink()
    wait_for(lambda: not health._checking, what="the slow host's answer")
    assert word(Provider.objects.get(pk=slow.pk)) == "Ready"
