"""Words of providers, for the parts."""

from __future__ import annotations

from django import template

from providers_app import looks

register = template.Library()
register.filter("reach", looks.reach)
register.filter("reason", looks.reason)
register.filter("used_percent", looks.used_percent)
