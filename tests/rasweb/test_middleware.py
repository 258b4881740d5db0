import pytest
from django.contrib.auth.models import User
from django.test import Client

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
