"""A provider that is forgotten or switched off while it is copied to: its lane ends, the others go on."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from django.db import transaction
from django.db.models.signals import post_save

from providers_app import connections
from providers_app.models import Provider
from templates_app import copying, creation, distribution, sealing, settling
from templates_app.copying import Copy
from templates_app.models import Event, PublishedImage, Template
from templates_app.states import Phase
from templates_app.transfer import events
from tests.templates_app.conftest import BY, OK, Drain, Hosts, target_on, words

pytestmark = pytest.mark.django_db(transaction=True)


def copy_and(ordered: Template, phase: Phase, provider: Provider, act: Callable[[], object]) -> None:
    """Copy, and do something as soon as one lane has got so far."""
    done: list[Event] = []

    def watch(instance: Event, **_: object) -> None:
        if (instance.to_phase, instance.provider_id) == (phase, provider.pk) and not done:
            done.append(instance)
            transaction.on_commit(act)

    post_save.connect(watch, sender=Event)
    copying.work(ordered.pk)
    post_save.disconnect(watch, sender=Event)
    assert done


@pytest.mark.parametrize("phase", [Phase.COPYING, Phase.VERIFYING, Phase.PUBLISHING])
def test_a_forgotten_lane_does_not_stop_the_others(
    ordered: Template, three: list[Provider], phase: Phase
) -> None:
    sealing.create(ordered.pk)
    copy_and(ordered, phase, three[1], lambda: distribution.forget(three[1], BY))
    assert words(ordered) == {"source": OK, "right": OK}
    assert not PublishedImage.objects.exclude(target__in=ordered.targets.all()).exists()


@pytest.mark.parametrize("fault", ["refuse=flush", "corrupt=0"])
def test_a_forgotten_lane_that_fails_does_not_stop_the_others(
    hosts: Hosts, three: list[Provider], fault: str
) -> None:
    poor = hosts.add("poor", kind="simulator")
    (hosts.path(poor) / "faults").write_text(fault)
    hosts.vm(three[0])
    new = creation.NewTemplate("win11", three[0], "golden", targets=[poor, three[1]])
    template = creation.create(new, BY)
    sealing.create(template.pk)
    copy_and(template, Phase.COPYING, poor, lambda: distribution.forget(poor, BY))
    assert words(template) == {"source": OK, "left": OK}


@pytest.fixture
def slowly(hosts: Hosts) -> Template:
    """A template of a source that is read quickly, and of two hosts of which one is slow."""
    source, slow, quick = hosts.add("source"), hosts.add("slow", kind="simulator"), hosts.add("quick")
    (hosts.path(slow) / "faults").write_text("slow=100000")
    hosts.vm(source)
    template = creation.create(creation.NewTemplate("win11", source, "golden", targets=[slow, quick]), BY)
    sealing.create(template.pk)
    return template


@pytest.mark.parametrize("name", ["slow", "source"])
def test_a_copy_ends_where_a_provider_is_switched_off_and_goes_on_later(
    hosts: Hosts, slowly: Template, drain: Drain, name: str
) -> None:
    slow, quick, off = (Provider.objects.get(name=each) for each in ("slow", "quick", name))
    copy_and(slowly, Phase.INSTALLED, quick, lambda: connections.enable(off, False))
    target = target_on(slowly, slow)
    assert (target.phase, target.claim, target.attempt) == (Phase.WAITING, None, 0)
    assert Event.objects.filter(provider=slow, note__startswith=f"{name} was switched off").exists()
    (hosts.path(slow) / "faults").write_text("")
    drain()
    assert target_on(slowly, slow).phase == (Phase.WAITING if off == slow else Phase.INSTALLED)
    connections.enable(off, True)
    hosts.check(Provider.objects.get(pk=off.pk))
    drain()
    assert words(slowly) == {"source": OK, "slow": OK, "quick": OK}


def test_what_is_told_of_a_forgotten_lane_changes_nothing(ordered: Template, three: list[Provider]) -> None:
    sealing.create(ordered.pk)
    target = target_on(ordered, three[1])
    assert target.take(Phase.CHECKING)
    target.advance(Phase.PUBLISHING)
    version = Template.objects.get(pk=ordered.pk).sealed_version
    copy = Copy(three[0], version, [(target, {})])
    distribution.forget(Provider.objects.get(pk=three[1].pk), BY)
    before = PublishedImage.objects.count()
    image = events.PublishedImage("images/x", "x", 1, "1", "ab" * 32)
    copy._installed(target, events.Published(str(target.pk), [image], 1, adopted=False))
    settling.fail(target, "TIMEOUT", "No answer.", "", permanent=False)
    settling.settle_cancelled(target, kept=True)
    assert PublishedImage.objects.count() == before
