"""Words of rows, for the parts."""

from __future__ import annotations

from django import template
from django.forms import BoundField, Form

from templates_app import activity, looks

register = template.Library()
register.filter("status", looks.status)
register.filter("state", looks.state)
register.filter("progress", looks.progress)
register.filter("guest_look", looks.guest)
register.filter("run_look", looks.run)
register.filter("recreation", looks.recreation)
register.filter("creation", looks.creation)
register.filter("working_copy", looks.working_copy)
register.filter("event_look", activity.event_look)
register.filter("who", activity.who)


@register.filter
def get_field(form: Form, name: str) -> BoundField:
    return form[name]
