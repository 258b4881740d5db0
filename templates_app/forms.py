"""Forms about templates. They read and check input; the verbs decide."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django import forms
from django.utils.translation import gettext_lazy as _

from providers_app.models import NAME, Provider
from rasweb.rows import RowsField, pks_of
from templates_app import distribution, guests, preflight
from templates_app.creation import NewTemplate
from templates_app.models import CloneMethod, Template
from templates_app.states import Desired


@dataclass(frozen=True)
class Choice:
    """One provider of the checklist, with what was checked before anything is copied there."""

    provider: Provider
    checked: bool
    fixed: bool
    guests: int
    findings: list[preflight.Finding]
    busy: bool = False


class PropertiesForm(forms.Form):
    """The Distribution tab: the list of providers, and how many at once."""

    providers = RowsField(Provider.objects.all(), required=False)
    max_concurrent = forms.IntegerField(
        label=_("Number of providers for concurrent distribution"), min_value=1, max_value=1000
    )
    delete_guests = forms.IntegerField(required=False, min_value=0)
    was = RowsField(Provider.objects.all(), required=False)
    sure = RowsField(Provider.objects.all(), required=False)

    def __init__(self, template: Template, *args: Any, **kwargs: Any) -> None:
        kwargs["initial"] = {"max_concurrent": template.max_concurrent}
        super().__init__(*args, **kwargs)
        self.template = template
        self.before = {target.provider_id: target for target in template.targets.select_related("provider")}
        self.present = sorted(pk for pk, target in self.before.items() if target.desired == Desired.PRESENT)

    def clean(self) -> dict[str, Any]:
        """Guests are deleted with their provider only if their number was typed."""
        cleaned = super().clean() or {}
        wanted = {provider.pk for provider in cleaned.get("providers", ())} | {
            self.template.source_provider_id
        }
        self.gone = [self.before[pk].provider for pk in self.present if pk not in wanted]
        living = self.template.guests.filter(provider__in=self.gone)
        self.dying = living.count()
        typed = cleaned.get("delete_guests")
        if self.dying and typed is not None and typed != self.dying:
            self.add_error("delete_guests", _("That is not their number: %d.") % self.dying)
        known = {provider.pk for provider in cleaned.get("sure", ())}
        known |= set(living.values_list("provider_id", flat=True))  # their guests are asked about instead
        self.asks = any(provider.pk not in known for provider in self.gone)
        return cleaned

    def apply(self, by: str) -> None:
        chosen, number = self.cleaned_data["providers"], self.cleaned_data["max_concurrent"]
        sure = bool(self.dying) and self.cleaned_data.get("delete_guests") == self.dying
        was = [provider.pk for provider in self.cleaned_data["was"]] or None
        distribution.apply(self.template, chosen, number, by, delete_guests=sure, was=was)

    def choices(self) -> list[Choice]:
        """Every provider: those of the list first."""
        template, version = self.template, self.template.current_version
        chosen = self.picked()
        rows = [
            Choice(
                provider,
                provider.pk in chosen,
                provider.pk == template.source_provider_id,
                template.guests.filter(provider=provider).count(),
                preflight.findings(template, version, provider),
                busy=provider.pk in self.before and self.before[provider.pk].desired == Desired.ABSENT,
            )
            for provider in Provider.objects.all()
        ]
        return sorted(
            rows, key=lambda row: (not row.fixed, row.provider.pk not in self.before, row.provider.name)
        )

    def seen(self) -> list[int]:
        """The list that the order is made from, also when the form is shown a second time."""
        sent = self.data.getlist("was") if self.is_bound else []  # type: ignore[attr-defined]  # a QueryDict
        return pks_of(sent) or self.present

    def picked(self) -> set[int]:
        if self.is_bound:
            return set(pks_of(self.data.getlist("providers")))  # type: ignore[attr-defined]  # a QueryDict
        return {pk for pk, target in self.before.items() if target.desired == Desired.PRESENT}


class GuestsForm(forms.Form):
    """How many guests, where, and what they are called."""

    provider = forms.ModelChoiceField(Provider.objects.none(), label=_("VDI provider"), empty_label=None)
    count = forms.IntegerField(label=_("Number of guest VMs"), min_value=1, max_value=500, initial=1)
    stem = forms.CharField(
        label=_("Name begins with"),
        max_length=guests.LONGEST_PREFIX,
        validators=[NAME],
        help_text=_("They are numbered: NAME-001, NAME-002 and so on."),
    )

    def __init__(self, template: Template, *args: Any, **kwargs: Any) -> None:
        kwargs["initial"] = {"stem": template.name[: guests.LONGEST_PREFIX], "count": 1}
        super().__init__(*args, **kwargs)
        held = Provider.objects.filter(
            targets__template=template, targets__desired=Desired.PRESENT
        ).distinct()
        version = template.current_version
        able = [each.pk for each in held if version and guests.holds(template, each, version)]
        self.fields["provider"].queryset = Provider.objects.filter(pk__in=able)  # type: ignore[attr-defined]  # a ModelChoiceField


class WizardForm(forms.Form):
    """All that the wizard asks for. It is carried from step to step in the page; nothing is stored before Finish."""

    STEPS = {
        "source": ("source", "name"),
        "clone": ("clone_method",),
        "distribution": ("multi_provider", "targets", "max_concurrent"),
        "summary": (),
    }
    DEFAULTS = {"clone_method": CloneMethod.FULL, "multi_provider": "on", "max_concurrent": "4"}

    source = forms.RegexField(r"^\d{1,18}:.+\Z", error_messages={"required": _("Choose a VM.")})
    name = forms.CharField(label=_("Name of the template"), max_length=63, validators=[NAME])
    clone_method = forms.ChoiceField(label=_("Clone method"), choices=CloneMethod.choices)
    multi_provider = forms.BooleanField(label=_("Distribute to several VDI providers"), required=False)
    targets = RowsField(Provider.objects.all(), label=_("Target list"), required=False)
    max_concurrent = forms.IntegerField(
        label=_("Number of providers for concurrent distribution"), min_value=1, max_value=1000
    )

    def clean_name(self) -> str:
        name = str(self.cleaned_data["name"])
        if Template.objects.filter(name=name).exists():
            raise forms.ValidationError(_("A template with this name exists already. Choose another name."))
        return name

    def clean_source(self) -> tuple[Provider, str]:
        pk, _colon, vm = self.cleaned_data["source"].partition(":")
        provider = Provider.objects.filter(pk=pk).first()
        if provider is None:
            raise forms.ValidationError(_("This provider was removed. Choose again."))
        return provider, vm

    def faulty_step(self, until: str) -> str | None:
        """The first step, up to ``until``, whose fields are not right."""
        for step, fields in self.STEPS.items():
            if any(self.errors.get(field) for field in fields):
                return step
            if step == until:
                break
        return None

    def order(self) -> NewTemplate:
        data = self.cleaned_data
        provider, vm = data["source"]
        return NewTemplate(
            name=data["name"],
            source_provider=provider,
            source_vm=vm,
            clone_method=data["clone_method"],
            targets=tuple(data["targets"]),
            multi_provider=data["multi_provider"],
            max_concurrent=data["max_concurrent"],
        )


def source_choices() -> tuple[list[tuple[Provider, list[dict[str, Any]]]], list[Provider]]:
    """VMs that may become a template, by the provider they live on, as last surveyed; and providers without any."""
    found, bare = [], []
    for provider in Provider.objects.available().select_related("inventory"):
        known = getattr(provider, "inventory", None)
        vms = [vm for vm in (known.vms if known else []) if not vm["mark"]]
        if vms:
            found.append((provider, sorted(vms, key=lambda vm: vm["name"])))
        else:
            bare.append(provider)
    return found, bare
