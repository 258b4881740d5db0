"""A database that is locked or away for a while, just when a result has to be stored."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator

import pytest
from django.db import OperationalError, connection, transaction
from django.db.models.signals import post_save

from providers_app.models import Provider
from templates_app import copying, guests, lanes, sealing, verification
from templates_app.models import Event, GuestVM, Template
from templates_app.states import GuestPhase, Phase, TemplatePhase
from tests.product import wait_for
from tests.templates_app.conftest import BY, Drain, Hosts, at_birth, target_on, words

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(connection.vendor != "sqlite", reason="takes the lock of SQLite's file"),
]
REPEATED = "not stored yet: database is locked"


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """SQLite waits for a lock no longer than a moment."""
    monkeypatch.setattr(lanes, "BEAT_SECONDS", 0.05)
    monkeypatch.setitem(connection.settings_dict["OPTIONS"], "timeout", 0.05)
    connection.close()
    yield
    connection.close()


class Lock:
    """Another connection that holds the database until somebody could not store something."""

    def __init__(self, log: pytest.LogCaptureFixture, patch: pytest.MonkeyPatch) -> None:
        self._log = log
        self._patch = patch
        self.until = REPEATED
        self.then: Callable[[], object] = lambda: None
        self._threads: list[threading.Thread] = []
        self.taken = False
        self.met = 0

    def take(self) -> None:
        self.taken = True
        other = sqlite3.connect(
            connection.settings_dict["NAME"], timeout=10, isolation_level=None, check_same_thread=False
        )
        other.execute("BEGIN IMMEDIATE")
        self._start(self._hold, other)

    def take_when_an_engine_runs(self) -> None:
        """The first one has nothing to do yet: whatever it finds out meets the lock."""
        at_birth(self._patch, lambda _: None if self._threads else self.take())

    def _start(self, work: Callable[..., object], *args: object) -> None:
        self._threads.append(threading.Thread(target=work, args=args))
        self._threads[-1].start()

    def _hold(self, other: sqlite3.Connection) -> None:
        try:
            wait_for(lambda: self.until in self._log.text, what="a try to store something")
            self.met += 1
            self.then()
        finally:
            other.close()

    def end(self) -> None:
        for thread in self._threads:
            thread.join()


@pytest.fixture
def lock(
    impatient: None, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Lock]:
    lock = Lock(caplog, monkeypatch)
    yield lock
    lock.end()
    assert lock.met == 1


@pytest.mark.parametrize("phase", [Phase.COPYING, Phase.PUBLISHING])
def test_a_copy_outlives_a_lock(ordered: Template, three: list[Provider], lock: Lock, phase: Phase) -> None:
    sealing.create(ordered.pk)
    moved: list[Event] = []

    def watch(instance: Event, **_: object) -> None:
        if instance.to_phase == phase and not moved:
            moved.append(instance)
            transaction.on_commit(lock.take)

    post_save.connect(watch, sender=Event)
    copying.work(ordered.pk)
    post_save.disconnect(watch, sender=Event)
    assert set(words(ordered).values()) == {("Ready", "OK")}
    assert not ordered.targets.exclude(claim=None).exists()
    for provider in three[1:]:
        assert Event.objects.filter(provider=provider, to_phase=Phase.INSTALLED).count() == 1


def test_a_sealing_outlives_a_lock(ordered: Template, lock: Lock) -> None:
    lock.take_when_an_engine_runs()
    sealing.create(ordered.pk)
    template = Template.objects.get(pk=ordered.pk)
    assert (template.phase, template.versions.count()) == (TemplatePhase.READY, 1)


def test_what_a_verification_found_outlives_a_lock(template: Template, lock: Lock) -> None:
    Template.objects.filter(pk=template.pk).update(max_concurrent=1)
    template.refresh_from_db()
    lock.take_when_an_engine_runs()
    assert all(row["ok"] for row in verification.verify(template))
    assert Event.objects.filter(note="Verified.").count() == 3
    assert not template.targets.exclude(claim=None).exists()


@pytest.fixture
def ordered_anew(template: Template, simulator: Provider, drain: Drain, lock: Lock) -> Iterator[GuestVM]:
    """A guest that is to be recreated; the database is locked from the moment that it is taken."""
    [guest] = guests.create(template, simulator, 1, BY)
    drain()
    guests.recreate(GuestVM.objects.select_related("template", "provider").get(), BY)

    def watch(instance: Event, **_: object) -> None:
        if instance.from_phase == GuestPhase.RECREATING and not lock.taken:
            transaction.on_commit(lock.take)

    post_save.connect(watch, sender=Event)
    yield guest
    post_save.disconnect(watch, sender=Event)


def was_recreated_once(guest: GuestVM) -> bool:
    guest.refresh_from_db()
    ends = Event.objects.filter(kind="guestvm", from_phase=GuestPhase.RECREATING, to_phase=GuestPhase.READY)
    return (guest.phase, guest.claim, ends.count()) == (GuestPhase.READY, None, 1)


def test_a_recreated_guest_outlives_a_lock(ordered_anew: GuestVM, lock: Lock) -> None:
    guests.work(ordered_anew.pk)
    assert was_recreated_once(ordered_anew)


def test_a_driver_works_on_while_its_progress_can_not_be_stored(
    hosts: Hosts, ordered_anew: GuestVM, lock: Lock, monkeypatch: pytest.MonkeyPatch
) -> None:
    faults = hosts.path(ordered_anew.provider) / "faults"
    faults.write_text("hang=recreate")
    lock.until, lock.then = "progress was not stored", lambda: faults.write_text("")
    guests.work(ordered_anew.pk)
    assert was_recreated_once(ordered_anew)


def test_what_was_rolled_back_is_done_again_from_the_beginning(
    ordered: Template, three: list[Provider], impatient: None
) -> None:
    target = target_on(ordered, three[1])
    assert target.take(Phase.CHECKING, attempt=1)
    tries: list[bool] = []

    def settle() -> None:
        tries.append(target.release(Phase.WAITING, attempt=target.attempt - 1))
        if len(tries) < 3:
            raise OperationalError("terminating connection due to administrator command")

    lanes.store(settle, target)
    assert tries == [True, True, True]
    after = target_on(ordered, three[1])
    assert (after.phase, after.claim, after.attempt) == (Phase.WAITING, None, 0)
    assert Event.objects.filter(provider=three[1], from_phase=Phase.CHECKING).count() == 1


def test_a_database_that_stays_away_ends_the_work(impatient: None) -> None:
    def away() -> None:
        raise OperationalError("gone")

    with pytest.raises(OperationalError, match="gone"):
        lanes.store(away, seconds=0.1)
