"""``manage.py provider``: the hosts."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from typing import Any

from providers_app import connections, health
from providers_app.models import Installation, Provider
from providers_app.status import provider_status
from rasweb.orders import OrderCommand, Unfinished, find, find_all, who
from rasweb.refusals import Refusal
from templates_app.distribution import forget


class Command(OrderCommand):
    help = "Add, limit, list, check, enable, disable, remove or forget VDI providers."

    def add_verbs(self, verb: Callable[..., ArgumentParser]) -> None:
        add = verb("add", self.add, "Register a host.")
        add.add_argument("name")
        add.add_argument("--kind", required=True)
        add.add_argument(
            "--set", action="append", default=[], metavar="NAME=VALUE", help="A setting of the kind."
        )
        add.add_argument(
            "--bandwidth", type=int, metavar="BYTES", help="Bytes per second written to it, 0 for no limit."
        )
        limit = verb("limit", self.limit, "Limit what is copied, to and from one host or to all together.")
        limit.add_argument("name", nargs="?")
        limit.add_argument("--bandwidth", type=int, metavar="BYTES", help="Bytes per second, 0 for no limit.")
        limit.add_argument(
            "--copies", type=int, metavar="N", help="Read from the host at once, and written to it."
        )
        verb("list", self.list, "Show all hosts.")
        verb("check", self.check_now, "Check hosts now; all without names.").add_argument("names", nargs="*")
        for name, run, told in (
            ("enable", self.enable, "Give a host work again."),
            ("disable", self.disable, "Give a host no work."),
            ("remove", self.remove, "Drop the connection to a host that is not used any more."),
            (
                "forget",
                self.forget,
                "Drop a host and all that is known of it; its files stay where they are.",
            ),
        ):
            verb(name, run, told).add_argument("name")

    def add(self, asked: Namespace) -> Any:
        limits = {} if asked.bandwidth is None else {"bandwidth_limit": asked.bandwidth}
        provider = connections.add(
            asked.name, asked.kind, dict(_pair(text) for text in asked.set), limits=limits
        )
        health.check([provider])
        provider.refresh_from_db()
        return provider_status(provider)

    def limit(self, asked: Namespace) -> Any:
        if asked.name is None:
            if asked.copies is not None:
                raise Refusal("--copies is for one provider.", "BAD_INPUT", "Name the provider.")
            if asked.bandwidth is not None:
                connections.limit_all(asked.bandwidth)
            return {"bandwidth_limit": Installation.bandwidth()}
        provider = find(Provider, asked.name)
        asked_for = {"bandwidth_limit": asked.bandwidth, "max_copies": asked.copies}
        connections.limit(provider, {name: value for name, value in asked_for.items() if value is not None})
        return provider_status(provider)

    def list(self, asked: Namespace) -> Any:
        return [provider_status(provider) for provider in Provider.objects.all()]

    def check_now(self, asked: Namespace) -> Any:
        providers = (
            find_all(Provider, asked.names) if asked.names else list(Provider.objects.filter(enabled=True))
        )
        health.check(providers)
        rows = [provider_status(Provider.objects.get(pk=provider.pk)) for provider in providers]
        return rows if all(row["state"] == "Ready" for row in rows) else Unfinished(rows)

    def enable(self, asked: Namespace) -> Any:
        provider = find(Provider, asked.name)
        connections.enable(provider, True)
        health.check([provider])
        return provider_status(Provider.objects.get(pk=provider.pk))

    def disable(self, asked: Namespace) -> Any:
        provider = find(Provider, asked.name)
        connections.enable(provider, False)
        return provider_status(provider)

    def remove(self, asked: Namespace) -> Any:
        connections.delete(find(Provider, asked.name))
        return f"{asked.name} was removed."

    def forget(self, asked: Namespace) -> Any:
        left = forget(find(Provider, asked.name), who())
        return {"provider": asked.name, "left_behind": left}

    def plain(self, answer: Any) -> None:
        if isinstance(answer, dict) and "left_behind" in answer:
            self.stdout.write(
                f"{answer['provider']} is forgotten. Left on the host: {len(answer['left_behind'])} objects."
            )
            for ref in answer["left_behind"]:
                self.stdout.write(f"  {ref}")
        else:
            super().plain(answer)


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise Refusal(f"“{text}” is not of the form NAME=VALUE.", "BAD_INPUT")
    return name, value
