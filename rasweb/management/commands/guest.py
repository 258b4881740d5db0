"""``manage.py guest``: guest VMs."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterable
from typing import Any

from providers_app.models import Provider
from rasweb.orders import OrderCommand, Unfinished, add_wait, find, wait_until, who
from rasweb.refusals import Refusal
from templates_app import guests
from templates_app.models import GuestVM, Template
from templates_app.states import GuestPhase
from templates_app.status import guest_status


class Command(OrderCommand):
    help = "Create, list and delete guest VMs."

    def add_verbs(self, verb: Callable[..., ArgumentParser]) -> None:
        create = verb("create", self.create, "Create guest VMs from a template on one of its providers.")
        create.add_argument("template")
        create.add_argument("--provider", required=True)
        create.add_argument("--count", type=int, default=1)
        create.add_argument(
            "--prefix", default="", help="Names are PREFIX-001 …; the template's name without it."
        )
        add_wait(create)
        listing = verb("list", self.list, "Show guest VMs.")
        listing.add_argument("--template")
        listing.add_argument("--provider")
        delete = verb("delete", self.delete, "Delete guest VMs and their disks.")
        delete.add_argument("names", nargs="+", metavar="NAME")
        delete.add_argument("--provider", help="Where the same name exists on several.")
        add_wait(delete)

    def create(self, asked: Namespace) -> Any:
        template, provider = find(Template, asked.template), find(Provider, asked.provider)
        made = guests.create(template, provider, asked.count, who(), asked.prefix)
        if asked.wait:
            wait_until(lambda: not _moving(made), asked.timeout)
        rows = [guest_status(guest) for guest in _fresh(made)]
        fine = not asked.wait or all(guest.phase == GuestPhase.READY for guest in _fresh(made))
        return rows if fine else Unfinished(rows)

    def list(self, asked: Namespace) -> Any:
        rows = GuestVM.objects.select_related("template", "provider", "version")
        if asked.template:
            rows = rows.filter(template=find(Template, asked.template))
        if asked.provider:
            rows = rows.filter(provider=find(Provider, asked.provider))
        return [guest_status(guest) for guest in rows]

    def delete(self, asked: Namespace) -> Any:
        doomed = [_only(name, asked.provider) for name in asked.names]
        for guest in doomed:
            guests.delete(guest, who())
        if asked.wait:
            wait_until(lambda: not _moving(doomed), asked.timeout)
        rows = [guest_status(guest) for guest in _fresh(doomed)]
        return Unfinished(rows) if asked.wait and rows else rows


def _only(name: str, provider: str | None) -> GuestVM:
    rows = GuestVM.objects.filter(name=name).select_related("template", "provider")
    found = list(rows.filter(provider__name=provider) if provider else rows)
    if not found:
        raise Refusal(f"There is no guest VM called “{name}”.", "MISSING")
    if len(found) > 1:
        raise Refusal(f"Several providers have a guest VM called “{name}”.", "AMBIGUOUS", "Say --provider.")
    return found[0]


def _fresh(made: Iterable[GuestVM]) -> Iterable[GuestVM]:
    keys = [guest.pk for guest in made]
    return (
        GuestVM.objects.filter(pk__in=keys).select_related("template", "provider", "version").order_by("pk")
    )


def _moving(made: Iterable[GuestVM]) -> bool:
    return any(guest.phase in guests.UNFINISHED and guest.provider.available for guest in _fresh(made))
