"""Login, the first administrator, and the admin."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse

from providers_app.models import Provider
from rasweb import setup
from rasweb.admin import site
from templates_app.models import Template
from tests.pages.conftest import World

PASSWORD = "correct horse battery staple"


def first(client: Client, name: str, token: str | None = None) -> Any:
    url = reverse("setup", args=[token or setup.token()])
    return client.post(url, {"username": name, "password1": PASSWORD, "password2": PASSWORD}, follow=True)


def test_the_setup_link_makes_an_administrator_who_is_signed_in(db: None) -> None:
    client = Client()
    assert "First administrator" in client.get(reverse("setup", args=[setup.token()])).content.decode()
    response = first(client, "ada")
    assert response.request["PATH_INFO"] == "/"
    assert "First steps" in response.content.decode()
    assert User.objects.get().is_superuser


def test_the_setup_link_works_once(db: None) -> None:
    token = setup.token()
    first(Client(), "ada", token)
    response = first(Client(), "eve", token)
    assert response.status_code == 404
    assert "not valid any more" in response.content.decode()
    assert list(User.objects.values_list("username", flat=True)) == ["ada"]


def test_a_weak_password_is_not_taken(db: None) -> None:
    data = {"username": "ada", "password1": "12345", "password2": "12345"}
    html = Client().post(reverse("setup", args=[setup.token()]), data).content.decode()
    assert "too short" in html
    assert not User.objects.exists()


def test_login_leads_back_to_the_page_that_was_asked_for(db: None) -> None:
    User.objects.create_superuser("ada", password=PASSWORD)
    client = Client()
    response = client.get("/guests/", follow=True)
    html = client.post(
        response.request["PATH_INFO"] + "?" + response.request["QUERY_STRING"],
        {"username": "ada", "password": PASSWORD},
        follow=True,
    )
    assert html.request["PATH_INFO"] == "/guests/"


def test_a_wrong_password_is_said_and_nothing_more(db: None) -> None:
    User.objects.create_superuser("ada", password=PASSWORD)
    html = Client().post("/login/", {"username": "ada", "password": "x"}).content.decode()
    assert "Please enter a correct username and password" in html


def test_logging_out_ends_the_session(viewer: Client) -> None:
    assert viewer.post("/logout/").status_code == 302
    assert viewer.get("/")["Location"].startswith("/login/")


def test_the_admin_has_our_models_and_no_queue() -> None:
    names = {model._meta.label for model in site._registry}
    assert not [name for name in names if name.startswith("django_q.")]
    assert {"templates_app.Template", "providers_app.Provider", "auth.User"} <= names


def test_each_page_of_the_admin_opens_and_deletes_nothing_in_bulk(
    busy: Template, administrator: Client
) -> None:
    for model in site._registry:
        base = f"admin:{model._meta.app_label}_{model._meta.model_name}"
        html = administrator.get(reverse(f"{base}_changelist")).content.decode()
        assert "delete_selected" not in html
        row = model._default_manager.first()
        if row is not None:
            assert administrator.get(reverse(f"{base}_change", args=[row.pk])).status_code == 200


@pytest.mark.parametrize("model", ["template", "distributiontarget", "guestvm", "templateversion", "event"])
def test_rows_that_hosts_depend_on_are_not_deleted_or_made_in_the_admin(
    model: str, busy: Template, administrator: Client
) -> None:
    base = f"admin:templates_app_{model}"
    row = next(each for each in site._registry if each._meta.model_name == model)._default_manager.first()
    assert row is None or administrator.post(reverse(f"{base}_delete", args=[row.pk])).status_code == 403
    assert administrator.get(reverse(f"{base}_add")).status_code == 403


def test_the_admin_writes_the_changed_column_and_no_state(busy: Template, administrator: Client) -> None:
    url = reverse("admin:templates_app_template_change", args=[busy.pk])
    administrator.post(url, {"max_concurrent": "7", "phase": "deleting", "name": "other"})
    busy.refresh_from_db()
    assert (busy.max_concurrent, busy.phase, busy.name) == (7, "ready", "win11")


def test_the_admin_refuses_to_delete_a_provider_in_use(busy: Template, administrator: Client) -> None:
    url = reverse("admin:providers_app_provider_delete", args=[busy.source_provider_id])
    assert "Cannot delete provider" in administrator.get(url).content.decode()
    administrator.post(url, {"post": "yes"})
    assert Provider.objects.filter(pk=busy.source_provider_id).exists()


def test_the_admin_deletes_a_provider_that_nothing_uses(world: World, administrator: Client) -> None:
    row = world.provider("spare")
    administrator.post(reverse("admin:providers_app_provider_delete", args=[row.pk]), {"post": "yes"})
    assert not Provider.objects.exists()


def test_the_admin_never_shows_secrets(world: World, administrator: Client) -> None:
    row = world.provider("source", sealed_secrets="gAAAAA-sealed")
    html = administrator.get(reverse("admin:providers_app_provider_change", args=[row.pk])).content.decode()
    assert "sealed" not in html
