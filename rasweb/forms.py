"""How forms are drawn, and the forms to log in and to make the first administrator."""

from __future__ import annotations

from typing import Any

from django.contrib.auth.forms import AuthenticationForm, BaseUserCreationForm
from django.contrib.auth.models import User
from django.core.exceptions import ValidationError
from django.db import transaction
from django.forms.renderers import DjangoTemplates
from django.utils.translation import gettext as _

from rasweb import setup
from rasweb.guessing import Try
from rasweb.quantities import duration


class Renderer(DjangoTemplates):
    """Fields are drawn by ``rasweb/field.html``: label, control, help and errors, tied together for screen readers."""

    field_template_name = "rasweb/field.html"


class SignIn(AuthenticationForm):
    """Name and password. After too many wrong ones no password is looked at for a while."""

    def clean(self) -> dict[str, Any]:
        if self.request is None or not {"username", "password"} <= set(self.cleaned_data):
            return super().clean()
        attempt = Try(self.request, self.cleaned_data["username"])
        if not attempt.begin():
            text = _("There were too many tries to log in. Wait %s, then try again.") % duration(attempt.wait)
            raise ValidationError(text, "wait")
        cleaned = super().clean()
        attempt.succeed()
        return cleaned


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
