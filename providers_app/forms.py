"""The form of a provider, built from the fields of its driver."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django import forms
from django.utils.translation import gettext_lazy as _

from providers_app import connections
from providers_app.drivers import KINDS, fields, load
from providers_app.drivers.setting import Field
from providers_app.models import NAME, Provider

MIB = 1024 * 1024


class LimitForm(forms.Form):
    """What holds for all copies together."""

    bandwidth = forms.FloatField(
        label=_("Bandwidth of all copies together (MiB/s)"),
        min_value=0,
        max_value=1 << 40,
        help_text=_("0 for no limit. Copies that run follow within about two seconds."),
    )


def in_mib(limit: int | None) -> float | None:
    """A limit as it is shown: MiB/s, to a hundredth."""
    if limit is None or not limit % MIB:
        return limit and limit // MIB
    return max(round(limit / MIB, 2), 0.01)


def in_bytes(limit: float | None) -> int | None:
    return None if limit is None else round(limit * MIB)


def kinds() -> list[tuple[str, str]]:
    return [(kind, load(kind).label) for kind in KINDS]


class ProviderForm(forms.Form):
    """Name, the driver's settings and secrets, and limits. A secret is never sent back; left empty it stays."""

    name = forms.CharField(label=_("Name"), max_length=63, validators=[NAME])
    bandwidth = forms.FloatField(
        label=_("Bandwidth limit (MiB/s)"),
        required=False,
        min_value=0,
        max_value=1 << 40,
        help_text=_("Written to this provider. Empty for the default, 0 for no limit."),
    )
    max_copies = forms.IntegerField(
        label=_("Copies at once"),
        min_value=1,
        max_value=1000,
        initial=8,
        help_text=_("Read from it, and as many written to it."),
    )
    was = forms.CharField(required=False, widget=forms.HiddenInput)

    ANY_KIND = ("name", "bandwidth", "max_copies")

    def __init__(
        self, kind: str, data: Any = None, *, provider: Provider | None = None, typed: Mapping[str, str] = {}
    ) -> None:
        """``typed``: what stood in the form of another kind; what every kind has is kept of it."""
        kept = {name: typed[name] for name in self.ANY_KIND if name in typed}
        super().__init__(data, initial=_known(provider) if provider else kept)
        self.kind = kind
        for each in fields(kind):
            self.fields[f"set-{each.name}"] = _form_field(each, stored=provider is not None)
        del self.fields["name" if provider else "was"]
        self.order_fields(["name", *(name for name in self.fields if name.startswith("set-"))])

    def values(self) -> dict[str, Any]:
        """Settings and secrets by the driver's own names; a secret left empty is not among them."""
        data = {name[4:]: value for name, value in self.cleaned_data.items() if name.startswith("set-")}
        secret = {each.name for each in fields(self.kind) if each.secret}
        return {name: value for name, value in data.items() if value not in ("", None) or name not in secret}

    def limits(self) -> dict[str, int | None]:
        """What was changed of them: a limit set to the byte elsewhere is not rounded by being shown."""
        limits: dict[str, int | None] = {}
        if "max_copies" in self.changed_data:
            limits["max_copies"] = self.cleaned_data["max_copies"]
        if "bandwidth" in self.changed_data:
            limits["bandwidth_limit"] = in_bytes(self.cleaned_data["bandwidth"])
        return limits


def _known(provider: Provider) -> dict[str, Any]:
    limit = provider.bandwidth_limit
    return {
        **{f"set-{name}": value for name, value in provider.settings.items()},
        "bandwidth": in_mib(limit),
        "max_copies": provider.max_copies,
        "was": connections.sign(provider),
    }


def _form_field(each: Field, *, stored: bool) -> forms.Field:
    """The form's field for one setting of a driver."""
    common: dict[str, Any] = {
        "label": each.label,
        "help_text": each.help,
        "required": each.required,
        "initial": each.default,
    }
    if each.secret:
        help_text = _("Stored encrypted and never shown. Leave it empty to keep it.") if stored else each.help
        common |= {"required": each.required and not stored, "help_text": help_text}
        return forms.CharField(widget=forms.PasswordInput(attrs={"autocomplete": "new-password"}), **common)
    if each.type == "integer":
        return forms.IntegerField(**common)
    if each.type == "boolean":
        return forms.BooleanField(**{**common, "required": False})
    if each.type == "choice":
        return forms.ChoiceField(choices=list(each.choices), **common)
    return forms.CharField(max_length=1000, **common)
