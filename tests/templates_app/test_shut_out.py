"""A host that answers, and lets rasweb in no more: it is as good as silent, and what waits for it goes on later."""

from __future__ import annotations

import pytest

from providers_app import health, secrets
from providers_app.drivers import open_driver
from providers_app.models import Provider, Reachability
from templates_app import copying, distribution, guests, lanes, sealing
from templates_app.creation import NewTemplate, create
from templates_app.models import GuestVM, Template
from templates_app.states import Desired, GuestPhase, Phase, TemplatePhase
from templates_app.transfer.job import Address
from tests.templates_app.conftest import BY, OK, Drain, Hosts, target_on, words


@pytest.fixture
def source(hosts: Hosts) -> Provider:
    source = hosts.add("source")
    hosts.vm(source)
    return source


@pytest.fixture
def keeper(hosts: Hosts) -> Provider:
    """A host that takes any password but one."""
    return hosts.add("keeper", "simulator")


def know(keeper: Provider, password: str) -> None:
    """From now on rasweb knows this password."""
    keeper.touch(sealed_secrets=secrets.seal({"password": password}, keeper.kind, keeper.settings))


def let_in(keeper: Provider) -> None:
    """After a check that found it shut as well."""
    health.check([keeper])
    know(keeper, "right")
    health.check([keeper])


def is_shut(keeper: Provider) -> bool:
    keeper.refresh_from_db()
    return (keeper.reachability, keeper.error_code) == (Reachability.NOT_AVAILABLE, "PERMISSION")


def test_a_copy_waits_for_a_host_that_lets_nobody_in(
    source: Provider, keeper: Provider, drain: Drain
) -> None:
    template = create(NewTemplate("win11", source, "golden", targets=[keeper]), BY)
    know(keeper, "wrong")
    drain()
    target = target_on(template, keeper)
    assert (target.phase, target.error_code, is_shut(keeper)) == (Phase.WAITING, "PERMISSION", True)
    assert words(template)["keeper"] == ("Not available", "Distributing")
    let_in(keeper)
    drain()
    assert set(words(template).values()) == {OK}


def test_a_removal_and_a_guest_wait_for_it_too(source: Provider, keeper: Provider, drain: Drain) -> None:
    template = create(NewTemplate("win11", source, "golden", targets=[keeper]), BY)
    drain()
    template.refresh_from_db()
    guests.create(template, keeper, 1, BY)
    know(keeper, "wrong")
    drain()
    guest = GuestVM.objects.get()
    assert (guest.phase, guest.error_code, is_shut(keeper)) == (GuestPhase.PREPARING, "PERMISSION", True)
    let_in(keeper)
    drain()
    assert GuestVM.objects.get().phase == GuestPhase.READY
    guests.delete(GuestVM.objects.get(), BY)
    drain()

    distribution.remove_providers(template, [keeper], BY)
    know(keeper, "wrong")
    drain()
    target = target_on(template, keeper)
    assert (target.phase, target.desired, is_shut(keeper)) == (Phase.WAITING, Desired.ABSENT, True)
    let_in(keeper)
    drain()
    assert not template.targets.filter(provider=keeper).exists()


def test_a_template_is_made_when_its_source_lets_rasweb_in_again(
    hosts: Hosts, source: Provider, keeper: Provider, drain: Drain
) -> None:
    open_driver("simulator", {**keeper.address().settings, "vms": 1, "size_mib": 1}).register()
    hosts.check(keeper)
    template = create(NewTemplate("win11", keeper, "sample-1", targets=[source]), BY)
    know(keeper, "wrong")
    sealing.create(template.pk)
    template = Template.objects.get(pk=template.pk)
    assert (template.phase, template.error_code, is_shut(keeper)) == (
        TemplatePhase.CREATING,
        "PERMISSION",
        True,
    )
    let_in(keeper)
    drain()
    assert set(words(template).values()) == {OK}


def test_a_copy_process_that_is_not_let_in_is_no_fault_of_the_copy(
    source: Provider, keeper: Provider, drain: Drain, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The password is changed between the check and the copy."""
    template = create(NewTemplate("win11", source, "golden", targets=[keeper]), BY)
    sealing.create(template.pk)
    with monkeypatch.context() as patched:
        patched.setattr(
            lanes, "address", lambda host: Address(host.kind, host.settings, {"password": "wrong"})
        )
        copying.work(template.pk)
    target = target_on(template, keeper)
    assert (target.phase, target.error_code, is_shut(keeper)) == (Phase.WAITING, "PERMISSION", True)
    health.check([keeper])
    target.advance(Phase.WAITING, next_try_at=None)
    drain()
    assert set(words(template).values()) == {OK}
