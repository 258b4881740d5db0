"""Adding, changing and removing providers: the one gate for pages, admin and commands."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from django.db import transaction
from django.db.models import ProtectedError

from providers_app import secrets
from providers_app.allowed import allowed
from providers_app.drivers import KINDS, fields
from providers_app.drivers.base import Survey
from providers_app.drivers.errors import DriverError
from providers_app.drivers.setting import Field
from providers_app.hostcalls import HostAddress, call
from providers_app.models import Installation, Provider, Reachability
from rasweb import live
from rasweb.refusals import Refusal, bad_input_refused, changed_meanwhile
from rasweb.rows import locked

CALL_SECONDS = 10.0
LARGEST = 2**63 - 1


def add(
    name: str, kind: str, values: Mapping[str, Any], *, limits: Mapping[str, Any] | None = None
) -> Provider:
    """Register a host. ``values`` are settings and secrets of the driver's fields, ``limits`` columns of the row."""
    known, hidden = split(kind, values)
    provider = Provider(name=name, kind=kind, settings=known, **(limits or {}))
    provider.host_id = _register(kind, known, hidden)
    provider.sealed_secrets = secrets.seal(hidden, kind, known)
    _save(provider)
    return provider


def sign(provider: Provider) -> str:
    """Tells whether somebody changed what the form of a provider shows."""
    shown = [provider.settings, provider.sealed_secrets, provider.bandwidth_limit, provider.max_copies]
    return hashlib.sha256(json.dumps(shown, sort_keys=True).encode()).hexdigest()


def change(
    provider: Provider, values: Mapping[str, Any], *, limits: Mapping[str, Any] | None = None, was: str = ""
) -> Provider:
    """Change settings. Credentials that are left out stay, unless the address changed. Another host is refused.

    ``was``: the sign of what the order was made from; refused when it is another one by now.
    """
    if was and was != sign(provider):
        raise changed_meanwhile(provider)
    known, hidden = split(provider.kind, values)
    if not hidden and known == provider.settings:
        hidden = _hidden(provider)
    same = known == provider.settings and hidden == _hidden(provider)
    if not same and _register(provider.kind, known, hidden) != provider.host_id:
        raise Refusal(
            "These settings lead to another host than before.",
            "OTHER_HOST",
            "Add the other host as a provider of its own.",
        )
    sealed = secrets.seal(hidden, provider.kind, known)
    _write(provider, {"settings": known, "sealed_secrets": sealed, **(limits or {})})
    return provider


def test(kind: str, values: Mapping[str, Any]) -> Survey:
    """Try unsaved settings: prepare the host as adding it would, and look round. Raises a Refusal with the cause."""
    known, hidden = split(kind, values)
    _register(kind, known, hidden)
    survey: Survey = _ask(kind, known, hidden, "survey")
    return survey


def limit(provider: Provider, limits: Mapping[str, int]) -> None:
    """Change how much is copied to and from a host; copies that run follow."""
    _clean(provider, limits)
    provider.touch(**limits)
    provider.announce()


def limit_all(bandwidth: int) -> None:
    """Bytes per second that all copies together may send, 0 for no limit; copies that run follow."""
    if not 0 <= bandwidth <= LARGEST:
        raise Refusal("The limit is a number of bytes per second, 0 for none.", "BAD_INPUT")
    Installation.objects.update(bandwidth_limit=bandwidth)


def enable(provider: Provider, enabled: bool) -> None:
    provider.touch(
        enabled=enabled,
        reachability=Reachability.UNKNOWN,
        next_check_at=None,
        failures=0,
        error_code="",
        error_text="",
        error_action="",
    )
    provider.announce()


def delete(provider: Provider) -> None:
    """Drop the connection. Refused while a template is distributed to it or a guest VM lives on it."""
    pk = provider.pk
    try:
        with transaction.atomic():
            provider.delete()
    except ProtectedError as error:
        users = sorted({str(user) for user in error.protected_objects})
        raise Refusal(
            f"{provider.name} is still used: {', '.join(users[:5])}{' …' if len(users) > 5 else ''}.",
            "IN_USE",
            "Remove it from the templates and delete its guest VMs first, or forget it.",
        ) from error
    live.changed("provider", pk, "providers", "chrome")


def split(kind: str, values: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """Check ``values`` against the driver's fields; return settings and secrets."""
    if kind not in KINDS:
        raise Refusal(
            f"There is no kind of provider called “{kind}”.", "BAD_INPUT", f"Use one of: {', '.join(KINDS)}."
        )
    declared = {each.name: each for each in fields(kind)}
    unknown = sorted(set(values) - set(declared))
    if unknown:
        raise Refusal(
            f"{kind} providers have no setting “{unknown[0]}”.",
            "BAD_INPUT",
            f"They have: {', '.join(declared)}.",
        )
    known, hidden = {}, {}
    for name, each in declared.items():
        value = _parsed(each, values.get(name, each.default))
        if value in ("", None) and each.required and not each.secret:
            raise Refusal(f"The setting “{name}” is missing.", "BAD_INPUT", each.help)
        if each.secret and value:
            hidden[name] = str(value)
        elif not each.secret:
            known[name] = value
    return known, hidden


def _hidden(provider: Provider) -> dict[str, str]:
    return secrets.unseal(provider.sealed_secrets, provider.kind, provider.settings)


def _parsed(each: Field, value: Any) -> Any:
    if each.type == "integer" and value not in ("", None):
        try:
            return int(value)
        except (TypeError, ValueError):
            raise Refusal(f"The setting “{each.name}” takes a whole number.", "BAD_INPUT") from None
    if each.type == "boolean":
        return value in (True, "true", "on", "1", "yes")
    if each.choices and value not in dict(each.choices):
        raise Refusal(
            f"The setting “{each.name}” takes one of: {', '.join(dict(each.choices))}.", "BAD_INPUT"
        )
    return value.strip() if isinstance(value, str) else value


def _register(kind: str, known: Mapping[str, Any], hidden: Mapping[str, str]) -> str:
    return str(_ask(kind, known, hidden, "register"))


def _ask(kind: str, known: Mapping[str, Any], hidden: Mapping[str, str], verb: str) -> Any:
    address = HostAddress(kind, {**known, **allowed()}, dict(hidden))
    try:
        return call(address, verb, timeout=CALL_SECONDS)
    except DriverError as error:
        raise Refusal(error.text, error.code, error.action) from error


def _clean(provider: Provider, columns: Mapping[str, Any]) -> None:
    for column, value in columns.items():
        setattr(provider, column, value)
    with bad_input_refused("Somebody else changed it just now."):
        provider.clean_fields(exclude={field.name for field in provider._meta.fields} - columns.keys())


def _write(provider: Provider, columns: Mapping[str, Any]) -> None:
    """Write these columns if the form would still show what this object was read with. It is checked at once."""
    before = sign(provider)
    _clean(provider, columns)
    with transaction.atomic():
        fresh = locked(Provider.objects.filter(pk=provider.pk)).first()
        if fresh is None or sign(fresh) != before:
            raise changed_meanwhile(provider)
        provider.touch(**columns, reachability=Reachability.UNKNOWN, next_check_at=None)
    provider.announce()


def _save(provider: Provider) -> None:
    same = Provider.objects.filter(host_id=provider.host_id).first()
    if same:
        raise Refusal(
            f"This host is registered already, as {same.name}.",
            "SAME_HOST",
            f"Use {same.name}, or remove it first.",
        )
    taken = "A provider with this name or host was added just now."
    with bad_input_refused(taken), transaction.atomic():
        provider.full_clean(exclude=["host_id"])
        provider.save()
    provider.announce()
