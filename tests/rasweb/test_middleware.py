import sqlite3

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from django.urls import reverse

from providers_app.models import Installation

pytestmark = pytest.mark.django_db

POLICY = {
    "default-src 'none'", "script-src 'self'", "style-src 'self'", "img-src 'self' data:", "font-src 'self'",
    "connect-src 'self'", "form-action 'self'", "base-uri 'none'", "frame-ancestors 'none'",
}  # fmt: skip


@pytest.mark.parametrize("path", ["/healthz", "/login/", "/", "/no/such/page"])
def test_every_answer_carries_the_strict_policy(client, path):
    headers = client.get(path).headers
    assert {rule.strip() for rule in headers["Content-Security-Policy"].split(";")} == POLICY
    assert (headers["X-Frame-Options"], headers["X-Content-Type-Options"]) == ("DENY", "nosniff")


def test_pages_of_a_signed_in_user_are_kept_nowhere(client):
    client.force_login(User.objects.create_superuser("ada", password="secret"))
    assert client.get("/").headers["Cache-Control"] == "no-store"


def test_a_form_from_elsewhere_is_refused():
    strict = Client(enforce_csrf_checks=True)
    assert strict.post("/login/", {"username": "ada", "password": "secret"}).status_code == 403


@pytest.fixture
def impatient(monkeypatch):
    """SQLite waits for a lock no longer than a moment."""
    monkeypatch.setitem(connection.settings_dict["OPTIONS"], "timeout", 0.05)
    connection.close()
    yield
    connection.close()


@pytest.fixture
def clicks(client, impatient):
    """An order of an administrator, while somebody else holds the database."""
    client.force_login(User.objects.create_superuser("ada", password="secret"))
    other = sqlite3.connect(connection.settings_dict["NAME"], isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    yield lambda **headers: client.post(reverse("providers-limits"), {"bandwidth": 5}, headers=headers)
    other.close()


@pytest.mark.django_db(transaction=True)
def test_a_click_that_meets_a_held_lock_is_told_to_try_again(clicks, caplog):
    answer = clicks(HX_Request="true")
    assert (answer.status_code, answer.headers["X-Parts"], answer.headers["HX-Reswap"]) == (200, "1", "none")
    assert "The database is busy or can not be reached. Try again." in answer.content.decode()
    assert "database is locked" in caplog.text


@pytest.mark.django_db(transaction=True)
def test_a_form_that_meets_a_held_lock_gets_a_page_that_says_so(clicks):
    answer = clicks()
    assert answer.status_code == 503
    assert "The database is busy or can not be reached. Try again." in answer.content.decode()
    assert Installation.bandwidth() == 0
