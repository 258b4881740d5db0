"""What the queue may call. Each takes a key, begins with a claim, and returns quietly when there is nothing to do."""

from __future__ import annotations

from functools import lru_cache

from templates_app import copying, guests, leftovers, maintenance, recreation, removal, sealing, workingcopy
from templates_app import scrub as scrubbing
from templates_app.reconciler import Reconciler


def create(template_id: int) -> None:
    sealing.create(template_id)


def distribute(template_id: int) -> None:
    copying.work(template_id)


def remove(target_id: int) -> None:
    removal.work(target_id)


def retire(target_id: int) -> None:
    removal.retire(target_id)


def discard(provider_id: int) -> None:
    leftovers.discard(provider_id)


def scrub(target_id: int) -> None:
    scrubbing.work(target_id)


def enter(template_id: int) -> None:
    maintenance.prepare(template_id)


def leave(template_id: int) -> None:
    maintenance.finish(template_id)


def shut_down(template_id: int) -> None:
    workingcopy.carry_out(template_id)


def guest(guest_id: int) -> None:
    guests.work(guest_id)


def recreate(run_id: int) -> None:
    recreation.verify(run_id)


def reconcile() -> None:
    """One pass of this process's reconciler."""
    _reconciler().run()


@lru_cache(maxsize=1)
def _reconciler() -> Reconciler:
    return Reconciler()
