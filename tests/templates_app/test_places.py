"""Who may copy when: limits, places that get free, and who goes along with a copy that runs."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any

import pytest
from django.db.models.signals import post_save
from django_q.models import OrmQ

from providers_app.models import Installation, Provider
from templates_app import bandwidth, copying, lanes, places
from templates_app.models import DiskVersion, DistributionTarget, Event, Template, TemplateVersion
from templates_app.states import Phase, TemplatePhase
from tests.templates_app.conftest import Hosts, target_on


def wait_on(template: Template, provider: Provider, **fields: Any) -> DistributionTarget:
    version = template.current_version
    return DistributionTarget.objects.create(
        template=template, provider=provider, wanted_version=version, **fields
    )


def copy_to(template: Template, provider: Provider) -> DistributionTarget:
    """A target that another worker copies to."""
    return wait_on(
        template,
        provider,
        phase=Phase.COPYING,
        claim=uuid.uuid4(),
        owner="another",
        reading_from=template.source_provider,
        copying_version=template.current_version,
    )


def installed(name: str, source: Provider, **fields: Any) -> Template:
    """A template that its source holds, as rows alone."""
    template = Template.objects.create(name=name, source_provider=source, source_vm="golden", **fields)
    disk = DiskVersion("disk0", "raw", 1 << 20, 500_000, "ab" * 32, "ab.manifest")
    version = TemplateVersion.objects.create(template=template, number=1, disks=[asdict(disk)])
    home = DistributionTarget.objects.create(
        template=template,
        provider=source,
        phase=Phase.INSTALLED,
        wanted_version=version,
        installed_version=version,
        verified_at=version.sealed_at,
    )
    home.images.create(version=version, disk=0, name=name, ref=name, size=disk.size, digest=disk.digest)
    template.current_version = version
    template.phase = TemplatePhase.READY
    template.save()
    return template


@pytest.fixture
def still(hosts: Hosts) -> Template:
    return installed("still", hosts.add("source"))


@pytest.fixture
def crew(hosts: Hosts, still: Template) -> places.Crew:
    """What a copy that runs to a host called busy would ask for more with."""
    copy_to(still, hosts.add("busy"))
    return places.Crew(still.source_provider, still.sealed_version, ())


def test_who_waits_for_a_version_that_is_copied_now_is_left_to_that_copy(
    hosts: Hosts, still: Template, crew: places.Crew
) -> None:
    target = wait_on(still, hosts.add("late"))
    assert places.waiting_templates() == set()
    assert places.claim(still.pk) is None
    more = places.claim_more(crew)
    assert more is not None
    assert [each.pk for each in more.targets] == [target.pk]
    assert more.targets[0].phase == Phase.CHECKING
    assert places.claim_more(crew) is None


def test_a_host_that_hung_gets_another_engine(hosts: Hosts, still: Template, crew: places.Crew) -> None:
    target = wait_on(still, hosts.add("late"), error_code="STALLED")
    assert places.claim_more(crew) is None
    assert places.waiting_templates() == {still.pk}
    apart = places.claim(still.pk)
    assert apart is not None
    assert [each.pk for each in apart.targets] == [target.pk]


def test_whose_engine_crashed_gets_one_alone(hosts: Hosts, still: Template) -> None:
    lost = {wait_on(still, hosts.add(name), error_code="ENGINE_LOST").pk for name in ("a", "b")}
    well = wait_on(still, hosts.add("c"), bytes_total=1)
    crews = [places.claim(still.pk) for _ in range(3)]
    taken = [[target.pk for target in crew.targets] for crew in crews if crew]
    assert sorted(taken) == [[pk] for pk in sorted(lost | {well.pk})]
    assert places.claim(still.pk) is None


def test_a_copy_alone_takes_nobody_along(hosts: Hosts, still: Template) -> None:
    wait_on(still, hosts.add("lost"), error_code="ENGINE_LOST")
    assert places.claim(still.pk) is not None
    wait_on(still, hosts.add("late"))
    assert places.waiting_templates() == {still.pk}
    assert places.claim(still.pk) is not None


def test_no_more_go_along_than_the_template_allows(hosts: Hosts, still: Template, crew: places.Crew) -> None:
    for name in ("a", "b", "c"):
        wait_on(still, hosts.add(name))
    Template.objects.filter(pk=still.pk).update(max_concurrent=3)
    more = places.claim_more(crew)
    assert more is not None
    assert len(more.targets) == 2
    Template.objects.filter(pk=still.pk).update(max_concurrent=1)
    assert places.claim_more(crew) is None


def test_a_host_is_not_written_to_more_often_at_once_than_it_allows(
    hosts: Hosts, still: Template, crew: places.Crew
) -> None:
    busy = Provider.objects.get(name="busy")
    other = installed("other", still.source_provider)
    wait_on(other, busy)
    Provider.objects.filter(pk=busy.pk).update(max_copies=1)
    assert places.claim(other.pk) is None
    Provider.objects.filter(pk=busy.pk).update(max_copies=2)
    assert places.claim(other.pk) is not None


def test_two_templates_share_a_source_evenly(hosts: Hosts, still: Template) -> None:
    Provider.objects.filter(pk=still.source_provider_id).update(max_copies=4)
    other = installed("other", still.source_provider)
    for name in ("a", "b", "c", "d"):
        provider = hosts.add(name)
        wait_on(still, provider)
        wait_on(other, provider)
    first, second = places.claim(still.pk), places.claim(other.pk)
    assert first is not None
    assert second is not None
    assert (len(first.targets), len(second.targets)) == (2, 2)
    assert places.claim_more(first) is None


def test_who_may_not_take_more_places_keeps_none_free(hosts: Hosts, still: Template) -> None:
    Provider.objects.filter(pk=still.source_provider_id).update(max_copies=4)
    other = installed("other", still.source_provider, max_concurrent=1)
    copy_to(other, hosts.add("busy"))
    for name in ("a", "b", "c", "d"):
        provider = hosts.add(name)
        wait_on(still, provider)
        wait_on(other, provider)
    crew = places.claim(still.pk)
    assert crew is not None
    assert len(crew.targets) == 3


def test_small_remainders_go_first(hosts: Hosts, still: Template) -> None:
    Template.objects.filter(pk=still.pk).update(max_concurrent=1)
    wait_on(still, hosts.add("fresh"), bytes_total=500_000)
    resumed = wait_on(still, hosts.add("resumed"), bytes_total=500_000, bytes_done=400_000)
    crew = places.claim(still.pk)
    assert crew is not None
    assert [each.pk for each in crew.targets] == [resumed.pk]


# While a copy runs


@pytest.fixture
def on_event() -> Iterator[Callable[[Callable[[Event], None]], None]]:
    """Call a function for each event that is recorded, within the work that records it."""
    receivers = []

    def connect(act: Callable[[Event], None]) -> None:
        def receiver(instance: Event, **kwargs: object) -> None:
            act(instance)

        receivers.append(receiver)
        post_save.connect(receiver, sender=Event)

    yield connect
    for receiver in receivers:
        post_save.disconnect(receiver, sender=Event)


def test_a_running_copy_takes_others_along_and_obeys_a_limit_that_is_lifted(
    hosts: Hosts,
    template: Template,
    monkeypatch: pytest.MonkeyPatch,
    on_event: Callable[[Callable[[Event], None]], None],
) -> None:
    monkeypatch.setattr(lanes, "BEAT_SECONDS", 0.05)
    Template.objects.filter(pk=template.pk).update(max_concurrent=2)
    slow = hosts.add("slow", bandwidth_limit=5_000)
    for provider in (slow, hosts.add("quick"), hosts.add("late")):
        wait_on(template, provider)
    done = []

    def lift(event: Event) -> None:
        if event.to_phase == Phase.INSTALLED:
            done.append(event.provider_name)
            if event.provider_name == "late":
                Provider.objects.filter(pk=slow.pk).update(bandwidth_limit=0)

    on_event(lift)
    copying.work(template.pk)
    assert done == ["quick", "late", "slow"]
    assert not OrmQ.objects.exists()


class Told:
    """What an engine was told."""

    def __init__(self) -> None:
        self.limits: list[tuple[str | None, int]] = []

    def limit(self, rate: int, lane: str | None = None) -> None:
        self.limits.append((lane, rate))


def test_limits_are_shared_by_all_who_send_now(hosts: Hosts, still: Template) -> None:
    other = installed("other", still.source_provider)
    shared = hosts.add("shared", bandwidth_limit=1000)
    mine, theirs = copy_to(still, shared), copy_to(other, shared)
    Installation.objects.update(bandwidth_limit=3000)
    copy_to(other, hosts.add("elsewhere"))
    limits, told = bandwidth.Limits(), Told()
    limits.adjust(told, [mine])  # type: ignore[arg-type]  # all that it asks of an engine
    assert told.limits == [(str(mine.pk), 500), (None, 1000)]
    theirs.release(Phase.FAILED)
    limits.adjust(told, [mine])  # type: ignore[arg-type]
    assert told.limits[2:] == [(str(mine.pk), 1000), (None, 1500)]
    limits.adjust(told, [mine])  # type: ignore[arg-type]
    assert len(told.limits) == 4


def test_a_job_begins_with_the_shares_of_its_hosts(hosts: Hosts, still: Template) -> None:
    other = installed("other", still.source_provider)
    shared, free = hosts.add("shared", bandwidth_limit=1000), hosts.add("free")
    copy_to(other, shared)
    Installation.objects.update(bandwidth_limit=3000)
    mine = [wait_on(still, shared), wait_on(still, free)]
    limits, told = bandwidth.Limits(), Told()
    job = lanes.make_job(None, [], [lanes.target_lane(target, {}) for target in mine])
    begun = limits.begin(job, mine)
    assert [lane.bandwidth for lane in begun.lanes] == [500, 0]
    assert begun.bandwidth == 2000
    for target in mine:
        target.take(Phase.CHECKING)
        target.advance(Phase.COPYING)
    limits.adjust(told, mine)  # type: ignore[arg-type]
    assert told.limits == []


def test_a_host_that_joins_again_gets_its_share_again(hosts: Hosts, still: Template) -> None:
    shared = hosts.add("shared", bandwidth_limit=1000)
    other = copy_to(installed("other", still.source_provider), shared)
    mine = copy_to(still, shared)
    limits, told = bandwidth.Limits(), Told()
    limits.adjust(told, [mine])  # type: ignore[arg-type]
    other.release(Phase.FAILED)
    mine.release(Phase.WAITING)
    lane = limits.join(lanes.target_lane(mine, {}), mine)
    assert lane.bandwidth == 1000
    mine.take(Phase.CHECKING)
    mine.advance(Phase.COPYING)
    limits.adjust(told, [mine])  # type: ignore[arg-type]
    assert told.limits == [(str(mine.pk), 500)]


def test_a_reading_keeps_to_the_lower_of_its_limit_and_that_of_its_host(
    hosts: Hosts, still: Template
) -> None:
    host = hosts.add("far", bandwidth_limit=1000)
    lane = lanes.target_lane(wait_on(still, host), {})
    limits, told = bandwidth.Limits(), Told()
    job = limits.begin_reading(lanes.make_job(None, [], [lane]), host, lane.id, 5000)
    assert job.lanes[0].bandwidth == 1000
    host.bandwidth_limit = 0
    host.save()
    limits.adjust_reading(told, host, lane.id, 5000)  # type: ignore[arg-type]
    assert told.limits == [(lane.id, 5000)]


def test_no_limit_stays_no_limit(hosts: Hosts, still: Template) -> None:
    target = copy_to(still, hosts.add("busy"))
    told = Told()
    bandwidth.Limits().adjust(told, [target])  # type: ignore[arg-type]
    assert told.limits == []
    assert target_on(still, target.provider).phase == Phase.COPYING
