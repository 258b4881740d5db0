"""Guests that a worker has in hand while something else happens to them, or to the database."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest
from django.db import connections
from django_q.models import OrmQ

from providers_app.drivers import open_driver
from providers_app.drivers.base import VM
from providers_app.models import Provider
from templates_app import guests
from templates_app.models import GuestVM, Template
from templates_app.states import GuestPhase
from tests.product import wait_for
from tests.templates_app.conftest import BY, Drain, Hosts

pytestmark = pytest.mark.django_db(transaction=True)


class Worker:
    """Another worker, that goes on as long as its host hangs."""

    def __init__(self, hosts: Hosts, host: Provider) -> None:
        self._faults = hosts.path(host) / "faults"
        self._thread: threading.Thread | None = None

    def take(self, guest: GuestVM, verb: str) -> None:
        self._faults.write_text(f"hang={verb}")
        self._thread = threading.Thread(target=self._work, args=(guest.pk,))
        self._thread.start()
        wait_for(lambda: GuestVM.objects.exclude(claim=None).exists(), what="a claim")

    def _work(self, pk: int) -> None:
        try:
            guests.work(pk)
        finally:
            connections.close_all()

    def go_on(self) -> None:
        self._faults.write_text("")

    def end(self) -> None:
        if self._thread is not None:
            self._thread.join()


@pytest.fixture
def worker(hosts: Hosts, simulator: Provider) -> Iterator[Worker]:
    worker = Worker(hosts, simulator)
    yield worker
    worker.go_on()
    worker.end()


def on_host(provider: Provider) -> tuple[VM, ...]:
    address = provider.address()
    with open_driver(address.kind, address.settings) as host:
        return host.survey().guests


def known(pk: int) -> GuestVM:
    return GuestVM.objects.select_related("template", "provider").get(pk=pk)


@pytest.mark.parametrize("so_far", [Worker.go_on, lambda worker: None], ids=["made", "half made"])
def test_a_guest_that_is_deleted_while_it_is_made_leaves_nothing_on_its_host(
    template: Template, simulator: Provider, worker: Worker, drain: Drain, so_far: Callable[[Worker], None]
) -> None:
    [guest] = guests.create(template, simulator, 1, BY)
    worker.take(guest, "clone")
    guests.delete(known(guest.pk), BY)
    guests.work(guest.pk)
    assert known(guest.pk).phase == GuestPhase.DELETING
    OrmQ.objects.all().delete()
    so_far(worker)
    worker.end()
    assert OrmQ.objects.count() == 1, "it is not deleted at once"
    worker.go_on()
    drain()
    assert not GuestVM.objects.exists()
    assert not on_host(simulator)


def test_a_guest_that_is_stopped_while_it_starts_is_off_in_the_end(
    template: Template, simulator: Provider, worker: Worker, drain: Drain
) -> None:
    [guest] = guests.create(template, simulator, 1, BY)
    drain()
    guests.switch(known(guest.pk), True, BY)
    worker.take(guest, "power")
    guests.switch(known(guest.pk), False, BY)
    OrmQ.objects.all().delete()
    worker.go_on()
    worker.end()
    assert known(guest.pk).power == "on"
    drain()
    assert (known(guest.pk).power, known(guest.pk).wanted_power) == ("off", "")
    assert [vm.power for vm in on_host(simulator)] == ["off"]
