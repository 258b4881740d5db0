"""What every page writes with: icons, words, form fields, quantities, times."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from django import template
from django.contrib.humanize.templatetags.humanize import naturaltime
from django.forms import BoundField, CheckboxInput, CheckboxSelectMultiple, RadioSelect, Select
from django.templatetags.static import static
from django.urls import reverse
from django.utils.html import format_html
from django.utils.http import urlencode
from django.utils.safestring import SafeString
from django.utils.translation import ngettext

from rasweb import quantities
from rasweb.listing import Head
from rasweb.looks import DOT, SPINNER, Look

register = template.Library()
register.filter("size", quantities.size)
register.filter("rate", quantities.rate)
register.filter("duration", quantities.duration)


@register.simple_tag
def icon(name: str, classes: str = "") -> SafeString:
    """A picture from the sprite. It says nothing by itself: a word stands beside it."""
    sprite = static("vendor/icons.svg")
    return format_html(
        '<svg class="icon {}" aria-hidden="true"><use href="{}#{}"/></svg>', classes, sprite, name
    )


@register.simple_tag
def word(look: Look) -> SafeString:
    """Icon and word of a column."""
    return format_html(
        '<span class="word">{}<span role="status">{}</span></span>',
        _sign(look, f"text-{look.tone}-emphasis"),
        look.word,
    )


@register.simple_tag
def pill(look: Look) -> SafeString:
    """Icon and word on a ground of their colour."""
    return format_html(
        '<span class="badge bg-{0}-subtle text-{0}-emphasis">{1}<span role="status">{2}</span></span>',
        look.tone,
        _sign(look),
        look.word,
    )


def _sign(look: Look, classes: str = "") -> SafeString:
    if look.icon == SPINNER:
        return format_html(
            '<span class="spinner-border spinner-border-sm text-{}" aria-hidden="true"></span>', look.tone
        )
    if look.icon == DOT:
        return format_html('<span class="dot bg-{}" aria-hidden="true"></span>', look.tone)
    return icon(look.icon, classes)


@register.simple_tag
def more(rows: Head, url: str, **filters: str | int) -> SafeString:
    """Where the rest of a list is, of which a page shows the beginning: a list by its name, with filters."""
    if not rows.more:
        return SafeString("")
    text = ngettext("%d more", "%d more", rows.more) % rows.more
    href = reverse(url) + (f"?{urlencode(filters)}" if filters else "")
    return format_html('<div class="card-footer"><a href="{}">{}</a></div>', href, text)


@register.filter
def when(moment: datetime | None) -> SafeString | str:
    """A time: relative in the text, absolute in ``datetime``; the browser puts it into the reader's own zone."""
    if moment is None:
        return "–"
    utc = moment.astimezone(UTC)
    return format_html(
        '<time datetime="{}" title="{}">{}</time>',
        utc.isoformat(timespec="seconds"),
        f"{utc:%Y-%m-%d %H:%M:%S} UTC",
        naturaltime(moment),
    )


@register.filter
def styled(field: BoundField) -> SafeString:
    """The control of a field in the kit's look."""
    widget = field.field.widget
    look = "form-control"
    if isinstance(widget, CheckboxInput | CheckboxSelectMultiple | RadioSelect):
        look = "form-check-input"
    elif isinstance(widget, Select):
        look = "form-select"
    return field.as_widget(attrs={"class": f"{look} is-invalid" if field.errors else look})


@register.inclusion_tag("rasweb/sorter.html", takes_context=True)
def sorter(context: dict[str, Any], key: str, label: str, classes: str = "") -> dict[str, Any]:
    """A column's head that sorts the list: up, then down."""
    now = context["listing"].sort
    return {
        "request": context["request"],
        "label": label,
        "classes": classes,
        "order": {key: "ascending", f"-{key}": "descending"}.get(now, "none"),
        "next": f"-{key}" if now == key else key,
    }
