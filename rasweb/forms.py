"""How forms are drawn, and the form that makes the first administrator."""

from __future__ import annotations

from django.contrib.auth.forms import BaseUserCreationForm
from django.contrib.auth.models import User
from django.db import transaction
from django.forms.renderers import DjangoTemplates

from rasweb import setup


class Renderer(DjangoTemplates):
    """Fields are drawn by ``rasweb/field.html``: label, control, help and errors, tied together for screen readers."""

    field_template_name = "rasweb/field.html"


class FirstAdministrator(BaseUserCreationForm):
    """Name and password, twice."""

    def make(self) -> User | None:
        """The administrator; None if somebody else was first."""
        with transaction.atomic():
            if not setup.needed():
                return None
            user: User = self.save(commit=False)
            user.is_superuser = user.is_staff = True
            user.save()
        return user
