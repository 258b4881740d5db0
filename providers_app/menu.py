"""What may be done with a provider. What does not apply is disabled with its reason."""

from __future__ import annotations

from django.urls import reverse
from django.utils.translation import gettext as _

from providers_app.models import Provider
from rasweb import access
from rasweb.menus import Item


def of_provider(row: Provider, role: str | None) -> list[Item]:
    operator = access.needs(role, access.OPERATOR)
    administrator = access.needs(role, access.ADMINISTRATOR)
    switch = "provider-disable" if row.enabled else "provider-enable"

    def to(name: str) -> str:
        return reverse(name, args=[row.pk])

    return [
        Item(_("Check now"), "plug-connected", to("provider-check"), operator or _off(row), verb="post"),
        Item(_("Edit"), "pencil", to("provider-edit"), administrator, gap=True, verb="link"),
        Item(
            _("Disable") if row.enabled else _("Enable"),
            "ban" if row.enabled else "circle-check",
            to(switch),
            administrator,
            verb="post",
        ),
        Item(_("Delete"), "trash", to("provider-delete"), administrator, danger=True, gap=True),
        Item(_("Forget"), "x", to("provider-forget"), administrator, danger=True),
    ]


def _off(row: Provider) -> str:
    return "" if row.enabled else _("Switched off")
