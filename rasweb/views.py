"""Signing in, the first administrator, and the help on shortcuts."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from django.contrib.auth import login
from django.contrib.auth.decorators import login_not_required
from django.contrib.auth.forms import AuthenticationForm
from django.contrib.auth.views import LoginView
from django.core.exceptions import NON_FIELD_ERRORS
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.shortcuts import redirect, render
from django.utils.decorators import method_decorator
from django.utils.translation import gettext as _
from django_htmx.http import HttpResponseClientRefresh

from rasweb import setup as setup_link
from rasweb.answers import dialog
from rasweb.forms import FirstAdministrator, SignIn


@method_decorator(login_not_required, name="dispatch")
class Login(LoginView):
    """A part of a page that asks after the session ended reloads the whole page instead of showing a login inside."""

    redirect_authenticated_user = True
    form_class = SignIn

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        if request.headers.get("HX-Request"):
            return HttpResponseClientRefresh()
        return super().dispatch(request, *args, **kwargs)

    def form_invalid(self, form: AuthenticationForm) -> HttpResponse:
        response = super().form_invalid(form)
        if form.has_error(NON_FIELD_ERRORS, "wait"):
            response.status_code = HTTPStatus.TOO_MANY_REQUESTS
        return response

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        return super().get_context_data(title=_("Log in"), button=_("Log in"), **kwargs)


@login_not_required
def setup(request: HttpRequest, token: str) -> HttpResponse:
    """Make the first administrator, once, with the link that the first start printed."""
    if not setup_link.allowed(token):
        return render(request, "rasweb/setup_over.html", status=404)
    form = FirstAdministrator(request.POST or None)
    if request.method == "POST" and form.is_valid():
        user = form.make()
        if user is not None:
            login(request, user, "django.contrib.auth.backends.ModelBackend")
        return redirect("overview" if user else "login")
    intro = _("Nobody can log in yet. Choose a name and a password; this link works once.")
    context = {"form": form, "title": _("First administrator"), "button": _("Create"), "intro": intro}
    return render(request, "registration/login.html", context)


def shortcuts(request: HttpRequest) -> HttpResponse:
    return dialog(request, "rasweb/shortcuts.html")
