"""The row is the truth, the UPDATE is the lock."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import uuid
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import timedelta
from pathlib import Path

import pytest
from django.db import IntegrityError, transaction
from django.utils import timezone
from django_q.models import OrmQ

import templates_app
from providers_app import connections, health
from providers_app.models import Provider
from templates_app import copying, distribution, leases, looks, places, preflight, reconciler, settling
from templates_app.leases import Reaper
from templates_app.models import DistributionTarget, Event, Template, TemplateVersion
from templates_app.models.work import error, process_is_gone, process_name
from templates_app.states import Phase, TemplatePhase
from tests.product import ROOT
from tests.templates_app.conftest import BY, Drain, Hosts, target_on


@pytest.fixture
def target(ordered: Template, three: list[Provider]) -> DistributionTarget:
    return target_on(ordered, three[1])


def twin(target: DistributionTarget) -> DistributionTarget:
    return target_on(target.template, target.provider)


def test_a_move_writes_the_row_an_event_and_a_new_revision(target: DistributionTarget) -> None:
    before = target.revision
    assert target.advance(Phase.FAILED, "why", "who", error_code="NO_SPACE")
    event = Event.objects.first()
    assert event is not None
    assert (event.from_phase, event.to_phase, event.by, event.note, event.code) == (
        "waiting",
        "failed",
        "who",
        "why",
        "NO_SPACE",
    )
    assert target.revision > before


def test_the_second_of_two_moves_changes_nothing(target: DistributionTarget) -> None:
    late = twin(target)
    assert target.advance(Phase.FAILED)
    events = Event.objects.count()
    assert not late.advance(Phase.REMOVING, claim=uuid.uuid4())
    assert Event.objects.count() == events
    assert twin(target).phase == Phase.FAILED


def test_two_workers_on_one_target_leave_one_claim(target: DistributionTarget) -> None:
    second = twin(target)
    assert target.take(Phase.CHECKING)
    assert not second.take(Phase.CHECKING)
    assert twin(target).claim == target.claim


def test_a_worker_that_lost_its_claim_changes_nothing_more(target: DistributionTarget) -> None:
    target.take(Phase.CHECKING)
    assert twin(target).release(Phase.WAITING)
    assert not target.report(bytes_done=5)
    assert not target.advance(Phase.COPYING)
    assert not target.release(Phase.FAILED)
    assert (twin(target).phase, twin(target).bytes_done) == (Phase.WAITING, 0)


def test_an_impossible_move_is_a_bug_that_shows(target: DistributionTarget) -> None:
    with pytest.raises(ValueError, match="never moves"):
        target.advance(Phase.PUBLISHING)


def test_the_database_refuses_work_without_a_claim(target: DistributionTarget) -> None:
    with pytest.raises(IntegrityError), transaction.atomic():
        DistributionTarget.objects.filter(pk=target.pk).update(phase=Phase.COPYING)


def test_the_database_refuses_ok_without_a_read_back(target: DistributionTarget) -> None:
    with pytest.raises(IntegrityError), transaction.atomic():
        DistributionTarget.objects.filter(pk=target.pk).update(phase=Phase.INSTALLED)


def test_the_database_refuses_a_provider_twice_in_one_list(target: DistributionTarget) -> None:
    with pytest.raises(IntegrityError), transaction.atomic():
        DistributionTarget.objects.create(template=target.template, provider=target.provider)


def test_nothing_else_writes_a_phase() -> None:
    root = Path(templates_app.__file__).parent
    writers = re.compile(r"\.phase = |update\([^)]*\bphase=|bulk_update\([^)]*phase", re.DOTALL)
    allowed = {"work.py", "recreation.py"}  # recreation writes the phases of its items, which nobody claims
    guilty = [
        str(path)
        for path in root.rglob("*.py")
        if path.name not in allowed and "transfer" not in path.parts and writers.search(path.read_text())
    ]
    assert guilty == []


def test_this_process_is_known_to_live() -> None:
    assert not process_is_gone(process_name())


def test_a_process_that_ended_is_known_to_be_gone() -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    name = process_name(child.pid)
    assert not process_is_gone(name)
    child.communicate(b"\n")
    assert process_is_gone(name)


@pytest.mark.parametrize("name", ["", "another-boot/1/2", "garbage"])
def test_of_a_process_elsewhere_nothing_is_certain(name: str) -> None:
    assert not process_is_gone(name)


CONTAINER = ["unshare", "--pid", "--fork", "--mount-proc", "--map-root-user"]
IS_GONE = (
    "import django, sys; django.setup(); from templates_app.models.work import process_is_gone;"
    "print(process_is_gone(sys.argv[1]))"
)


def test_of_a_process_in_another_container_nothing_is_certain() -> None:
    if subprocess.run([*CONTAINER, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this machine lets nobody begin to count processes anew")
    asked = [*CONTAINER, sys.executable, "-c", IS_GONE, process_name()]
    env = {**os.environ, "DJANGO_SETTINGS_MODULE": "tests.settings"}
    said = subprocess.run(asked, env=env, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    assert said.stdout == "False\n"


def elsewhere(target: DistributionTarget) -> None:
    DistributionTarget.objects.filter(pk=target.pk).update(owner="another-boot/1/2")


def test_a_silent_worker_loses_its_claim_after_a_lease(
    target: DistributionTarget, monkeypatch: pytest.MonkeyPatch, settings: object
) -> None:
    settings.LEASE_SECONDS = 60  # type: ignore[attr-defined]  # pytest-django's settings are dynamic
    clock = [1000.0]
    monkeypatch.setattr(leases.time, "monotonic", lambda: clock[0])
    target.take(Phase.CHECKING)
    elsewhere(target)
    reaper = Reaper()
    assert reaper.reap() == 0
    clock[0] += 59
    assert reaper.reap() == 0
    clock[0] += 2
    assert reaper.reap() == 1
    assert (twin(target).phase, twin(target).error_code) == (Phase.WAITING, "WORKER_LOST")


def test_a_beat_renews_the_lease_whatever_wall_clocks_say(
    target: DistributionTarget, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [1000.0]
    monkeypatch.setattr(leases.time, "monotonic", lambda: clock[0])
    target.take(Phase.CHECKING)
    elsewhere(target)
    DistributionTarget.objects.filter(pk=target.pk).update(changed_at=timezone.now() - timedelta(days=400))
    reaper = Reaper()
    reaper.reap()
    for _ in range(5):
        clock[0] += 50
        target.report()
        assert reaper.reap() == 0
    assert twin(target).claim == target.claim


def test_a_worker_that_keeps_dying_without_progress_is_given_up(target: DistributionTarget) -> None:
    for _ in range(4):
        target = twin(target)
        assert target.take(Phase.CHECKING, attempt=target.attempt + 1)
        assert target.recover()
    assert (twin(target).phase, twin(target).error_code) == (Phase.FAILED, "WORKER_LOST")


def test_a_worker_that_came_further_costs_no_try(target: DistributionTarget) -> None:
    for step in range(1, 7):
        target = twin(target)
        assert target.take(Phase.CHECKING, attempt=target.attempt + 1, bytes_done=step * 1000)
        assert target.recover()
    assert (twin(target).phase, twin(target).attempt) == (Phase.WAITING, 0)


def test_what_an_earlier_try_left_is_told_and_needs_no_room_twice(target: DistributionTarget) -> None:
    target.take(Phase.CHECKING, attempt=1, bytes_done=600_000, bytes_total=900_000)
    settling.fail(target, "IO_ERROR", "It failed.", "", permanent=False)
    DistributionTarget.objects.filter(pk=target.pk).update(phase=Phase.FAILED)
    target.provider.touch(reachability="online", last_seen_at=timezone.now())
    distribution.retry(twin(target), BY)
    again = twin(target)
    assert again.bytes_peak == 600_000
    disks = [{"allocated": 900_000}]
    version = TemplateVersion.objects.create(template=target.template, number=1, disks=disks)
    assert preflight.needed_bytes(target.template, version, target.provider) == 300_000
    again.phase, again.bytes_total = Phase.COPYING, 900_000
    for done, checking in ((0, True), (599_999, True), (600_001, False)):
        again.bytes_done = done
        assert looks.progress(again).detail.startswith("Checking what is there") == checking


def test_running_copies_never_exceed_the_templates_limit(
    hosts: Hosts, template: Template, settings: object
) -> None:
    Template.objects.filter(pk=template.pk).update(max_concurrent=2)
    for name in ("a", "b", "c"):
        DistributionTarget.objects.create(
            template=template, provider=hosts.add(name), wanted_version=template.current_version
        )
    first = places.claim(template.pk)
    assert first is not None
    assert len(first.targets) == 2
    assert places.claim(template.pk) is None


def test_running_copies_never_exceed_the_sources_limit(hosts: Hosts, template: Template) -> None:
    Provider.objects.filter(pk=template.source_provider.pk).update(max_copies=1)
    for name in ("a", "b"):
        DistributionTarget.objects.create(
            template=template, provider=hosts.add(name), wanted_version=template.current_version
        )
    crew = places.claim(template.pk)
    assert crew is not None
    assert len(crew.targets) == 1


def test_the_next_in_line_begin_as_soon_as_a_copy_ends(
    hosts: Hosts,
    template: Template,
    django_capture_on_commit_callbacks: Callable[..., AbstractContextManager],
) -> None:
    Template.objects.filter(pk=template.pk).update(max_concurrent=1)
    for name in ("a", "b"):
        DistributionTarget.objects.create(
            template=template, provider=hosts.add(name), wanted_version=template.current_version
        )
    for still_waiting in (True, False):
        OrmQ.objects.all().delete()
        with django_capture_on_commit_callbacks(execute=True):
            copying.work(template.pk)
        assert OrmQ.objects.exists() == still_waiting


def test_another_holder_is_the_source_when_the_source_is_away(
    hosts: Hosts, template: Template, three: list[Provider], drain: Drain
) -> None:
    hosts.take_away(three[0])
    for _ in range(3):
        hosts.check(three[0])
    late = hosts.add("late")
    DistributionTarget.objects.create(
        template=template, provider=late, wanted_version=template.current_version
    )
    drain()
    assert target_on(template, late).phase == Phase.INSTALLED
    assert hosts.images(late) == hosts.images(three[1])


def test_without_any_holder_a_target_waits_and_says_why(
    hosts: Hosts, template: Template, three: list[Provider], drain: Drain
) -> None:
    for provider in three:
        hosts.take_away(provider)
        for _ in range(3):
            hosts.check(provider)
    late = hosts.add("late")
    DistributionTarget.objects.create(
        template=template, provider=late, wanted_version=template.current_version
    )
    copying.work(template.pk)
    target = target_on(template, late)
    assert (target.phase, target.error_code, target.attempt) == (Phase.WAITING, "SOURCE_UNREACHABLE", 0)
    for provider in three:
        hosts.bring_back(provider)
        hosts.check(provider)
    drain()
    assert target_on(template, late).phase == Phase.INSTALLED


def test_a_target_of_a_silent_provider_waits_without_spending_a_try(
    hosts: Hosts, ordered: Template, three: list[Provider], drain: Drain
) -> None:
    hosts.take_away(three[2])
    for _ in range(3):
        hosts.check(three[2])
    drain()
    assert (target_on(ordered, three[2]).phase, target_on(ordered, three[2]).attempt) == (Phase.WAITING, 0)
    hosts.bring_back(three[2])
    hosts.check(three[2])
    drain()
    assert target_on(ordered, three[2]).phase == Phase.INSTALLED


def test_a_provider_that_vanishes_after_the_claim_costs_the_others_nothing(
    hosts: Hosts, ordered: Template, three: list[Provider], drain: Drain
) -> None:
    hosts.take_away(three[2])
    drain()
    assert target_on(ordered, three[1]).phase == Phase.INSTALLED
    late = target_on(ordered, three[2])
    assert (late.phase, str(late.state)) == (Phase.WAITING, "Not available")
    hosts.bring_back(three[2])
    hosts.check(three[2])
    drain()
    assert target_on(ordered, three[2]).phase == Phase.INSTALLED


def test_what_failed_for_a_passing_reason_goes_on_when_the_provider_is_back(
    hosts: Hosts, template: Template, three: list[Provider], drain: Drain
) -> None:
    target = target_on(template, three[1])
    target.advance(Phase.FAILED, error_code="UNREACHABLE", error_text="It was away.")
    three[1].touch(online_since=timezone.now())
    drain()
    assert target_on(template, three[1]).phase == Phase.INSTALLED


def test_a_host_that_answers_checks_but_not_copies_gets_no_fresh_start(
    hosts: Hosts, three: list[Provider], template: Template
) -> None:
    target = target_on(template, three[1])
    tried = error("STALLED", "The host accepted no data.")
    DistributionTarget.objects.filter(pk=target.pk).update(phase=Phase.FAILED, attempt=4, **tried)
    health.suspect(target.provider, "STALLED", "The host accepted no data.")
    hosts.check(target.provider)
    reconciler.Reconciler().run()
    after = target_on(template, three[1])
    assert after.provider.available
    assert (after.phase, after.attempt) == (Phase.FAILED, 4)


def test_losing_the_whole_queue_loses_nothing(ordered: Template, drain: Drain) -> None:
    OrmQ.objects.all().delete()
    drain()
    assert Template.objects.get(pk=ordered.pk).phase == TemplatePhase.READY
    assert set(ordered.targets.values_list("phase", flat=True)) == {Phase.INSTALLED}


def test_what_is_due_is_asked_for_once_not_every_second(ordered: Template) -> None:
    OrmQ.objects.all().delete()
    once = reconciler.Reconciler()
    for _ in range(5):
        once.run()
    assert OrmQ.objects.count() == 1


def test_the_environment_names_no_owner_twice() -> None:
    assert process_name(os.getpid()).count("/") == 2


def test_an_order_that_comes_while_a_copy_ends_is_not_lost(
    hosts: Hosts, template: Template, three: list[Provider], drain: Drain
) -> None:
    DistributionTarget.objects.filter(template=template, provider=three[1]).update(desired="absent")
    drain()
    assert not template.targets.filter(provider=three[1]).exists()
    assert hosts.images(three[1]) == {}


def test_a_provider_that_is_away_can_still_be_given_other_limits(hosts: Hosts, three: list[Provider]) -> None:
    hosts.take_away(three[1])
    connections.change(three[1], three[1].settings, limits={"bandwidth_limit": 5})
    assert Provider.objects.get(pk=three[1].pk).bandwidth == 5
