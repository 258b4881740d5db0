"""What attempts left staged on hosts goes when nobody wants it any more, and not before."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from datetime import timedelta

import pytest
from django.utils import timezone

from providers_app.drivers import open_driver
from providers_app.drivers.base import Driver, Mark, Sink
from providers_app.models import Inventory, Provider
from templates_app import distribution, lanes, leftovers
from templates_app.models import Template
from templates_app.states import Desired, Phase, TemplatePhase
from tests.templates_app.conftest import BY, SIZE, Drain, Hosts, target_on

OLD = "win11-v7-0123456789ab.raw"


def at(provider: Provider) -> Driver:
    return open_driver(provider.kind, provider.address().settings)


def stage(provider: Provider, name: str, mark: Mark) -> Sink:
    with at(provider) as host:
        return host.stage(name, SIZE, mark)


def staged(provider: Provider) -> set[str]:
    with at(provider) as host:
        return {image.name for image in host.survey().staged}


@pytest.fixture
def late(hosts: Hosts, template: Template) -> Provider:
    """A host whose copy was broken off and is tried again in ten minutes."""
    late = hosts.add("late")
    distribution.add_providers(template, [late], BY)
    again = timezone.now() + timedelta(minutes=10)
    assert target_on(template, late).advance(Phase.WAITING, next_try_at=again)
    return late


@pytest.mark.parametrize("kind", ["directory", "simulator"])
def test_what_was_staged_for_an_image_that_others_published_is_discarded(
    hosts: Hosts, template: Template, drain: Drain, kind: str
) -> None:
    host = hosts.add("host", kind=kind)
    distribution.add_providers(template, [host], BY)
    drain()
    [image] = target_on(template, host).images.all()
    stage(host, image.name, template.mark(version=1, digest=image.digest)).close()
    hosts.check(host)
    drain()
    with at(host) as there:
        survey = there.survey()
    assert ([each.name for each in survey.images], survey.staged) == ([image.name], ())


def test_a_target_that_waits_keeps_only_what_is_staged_for_the_wanted_images(
    hosts: Hosts, template: Template, late: Provider, drain: Drain
) -> None:
    target = target_on(template, late)
    [former] = lanes.image_names(target)
    target.advance(Phase.WAITING, generation=1)
    [wanted] = lanes.image_names(target)
    for name in (OLD, former, wanted, "win11-v2-{digest12}.raw"):
        stage(late, name, template.mark()).close()
    hosts.check(late)
    drain()
    assert staged(late) == {wanted}


def test_what_others_staged_is_left_alone(
    hosts: Hosts, template: Template, late: Provider, drain: Drain
) -> None:
    stage(late, OLD, replace(template.mark(), installation="elsewhere")).close()
    hosts.check(late)
    drain()
    assert staged(late) == {OLD}


def test_what_a_running_engine_holds_is_discarded_once_it_let_go(
    hosts: Hosts, template: Template, late: Provider, drain: Drain
) -> None:
    with closing(stage(late, OLD, template.mark())):
        hosts.check(late)
        drain()
        assert staged(late) == {OLD}
    hosts.check(late)
    drain()
    assert staged(late) == set()


def test_work_under_way_and_removals_are_left_to_themselves(
    hosts: Hosts, template: Template, late: Provider
) -> None:
    stage(late, OLD, template.mark()).close()
    hosts.check(late)
    inventory = Inventory.objects.get(provider=late)
    assert leftovers.unwanted(inventory) == {(OLD, template.mark())}
    target = target_on(template, late)
    assert target.take(Phase.CHECKING)
    assert leftovers.unwanted(inventory) == set()
    assert target.release(Phase.WAITING, desired=Desired.ABSENT)
    assert leftovers.unwanted(inventory) == set()
    assert target.advance(Phase.WAITING, desired=Desired.PRESENT, cancel=True)
    assert leftovers.unwanted(inventory) == set()
    assert target.advance(Phase.WAITING, cancel=False)
    assert template.advance(TemplatePhase.ENTERING)
    assert leftovers.unwanted(inventory) == set()


def test_what_is_staged_for_no_target_at_all_is_discarded(
    hosts: Hosts, template: Template, drain: Drain
) -> None:
    host = hosts.add("host")
    stage(host, OLD, template.mark()).close()
    hosts.check(host)
    drain()
    assert staged(host) == set()


def test_nothing_is_asked_of_a_host_that_is_not_available(
    hosts: Hosts, template: Template, late: Provider
) -> None:
    stage(late, OLD, template.mark()).close()
    hosts.check(late)
    late.touch(enabled=False)
    leftovers.discard(late.pk)
    assert staged(late) == {OLD}
    late.touch(enabled=True)
    hosts.take_away(late)
    leftovers.discard(late.pk)
    late.refresh_from_db()
    assert not late.available
