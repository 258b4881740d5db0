"""Thousands of targets cost what is done with them, not what there are."""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Callable
from datetime import timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from providers_app.models import Provider
from templates_app.models import DistributionTarget, Template
from templates_app.pages import loaded, shown_targets
from templates_app.reconciler import Reconciler
from templates_app.states import Desired, Phase, Word
from tests.templates_app.conftest import Hosts
from tests.templates_app.test_places import copy_to, installed, wait_on


@pytest.fixture
def still(hosts: Hosts) -> Template:
    return installed("still", hosts.add("source"))


def known_hosts(count: int, prefix: str = "host") -> list[Provider]:
    """Hosts that answered just now, as rows alone."""
    now = timezone.now()
    return Provider.objects.bulk_create(
        Provider(
            name=f"{prefix}-{number:02}",
            kind="directory",
            host_id=f"{prefix}-{number}",
            reachability="online",
            last_seen_at=now,
        )
        for number in range(count)
    )


def hold(template: Template, hosts: list[Provider]) -> None:
    version = template.current_version
    for host in hosts:
        wait_on(template, host, phase=Phase.INSTALLED, installed_version=version, verified_at=timezone.now())


def test_a_beat_writes_each_its_own_and_names_who_lost_its_claim(still: Template) -> None:
    mine = [copy_to(still, host) for host in known_hosts(3)]
    for number, target in enumerate(mine):
        target.bytes_done, target.timing = number + 1, {"lately": {"write": number}}
    DistributionTarget.objects.filter(pk=mine[1].pk).update(claim=uuid.uuid4())
    DistributionTarget.objects.filter(pk=mine[2].pk).update(cancel=True)
    with CaptureQueriesContext(connection) as queries:
        assert DistributionTarget.report_all(mine, "bytes_done", "timing") == [mine[1]]
    assert len(queries) == 2
    rows = DistributionTarget.objects.in_bulk([target.pk for target in mine])
    assert [rows[target.pk].bytes_done for target in mine] == [1, 0, 3]
    assert rows[mine[2].pk].timing == {"lately": {"write": 2}}
    assert (mine[0].beat, mine[0].revision) == (1, 1)
    assert mine[2].cancel
    assert DistributionTarget.report_all([], "bytes_done") == []


def test_the_words_that_are_counted_are_those_of_each_target(still: Template) -> None:
    away, failed, removed, copied, waiting, held = known_hosts(6)
    Provider.objects.filter(pk=away.pk).update(reachability="not_available")
    wait_on(still, away)
    wait_on(still, failed, phase=Phase.FAILED)
    wait_on(still, removed, desired=Desired.ABSENT)
    target = copy_to(still, copied)
    DistributionTarget.objects.filter(pk=target.pk).update(bytes_done=30, bytes_total=100)
    wait_on(still, waiting, bytes_total=100)
    hold(still, [held])
    [template] = loaded(Template.objects.all())
    targets = list(still.targets.select_related("provider"))
    shown = template.distribution
    words = Counter(each.progress for each in targets)
    assert (shown.total, shown.failed, shown.key) == (7, words[Word.FAILED], "Removing provider")
    assert shown.ready == sum(str(each.state) == "Ready" for each in targets)
    assert shown.line.detail == f"{words[Word.OK]} of 7, 1 failed, 1 not available"
    assert shown.line.percent == pytest.approx(15)


def test_who_needs_a_person_stands_first_where_there_are_many(still: Template) -> None:
    many = known_hosts(60)
    for host in many[:-2]:
        wait_on(still, host)
    copy_to(still, many[-2])
    wait_on(still, many[-1], phase=Phase.FAILED)
    names = [target.provider.name for target in shown_targets(still)]
    assert names[:3] == ["host-59", "host-58", "host-00"]
    assert len(names) == 50
    assert [target.provider.name for target in shown_targets(still, "2")][-1] == "source"


def test_a_pass_asks_as_little_for_many_as_for_few(
    still: Template, django_assert_max_num_queries: Callable[..., CaptureQueriesContext]
) -> None:
    reconciler = Reconciler()
    hold(still, known_hosts(2))
    for host in known_hosts(1, "early"):
        wait_on(still, host, next_try_at=timezone.now() + timedelta(hours=1))
    reconciler.run()
    with CaptureQueriesContext(connection) as few:
        reconciler.run()
    hold(still, known_hosts(10, "more"))
    for host in known_hosts(10, "late"):
        wait_on(still, host, next_try_at=timezone.now() + timedelta(hours=1))
    with django_assert_max_num_queries(len(few)):
        reconciler.run()
