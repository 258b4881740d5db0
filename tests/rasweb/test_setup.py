import pytest
from django.contrib.auth.models import User
from django.core import signing

from rasweb import setup

pytestmark = pytest.mark.django_db


def test_the_link_works_until_there_is_an_administrator():
    link = setup.link("http://localhost:8000/")
    token = link.removeprefix("http://localhost:8000/setup/").rstrip("/")
    assert setup.allowed(token)
    User.objects.create_superuser("ada", password="secret")
    assert not setup.allowed(token)
    assert setup.link("http://localhost:8000") is None


def test_a_blocked_administrator_does_not_count():
    User.objects.create_superuser("ada", password="secret", is_active=False)
    assert setup.allowed(setup.token())


def test_only_our_own_token_is_taken():
    foreign = signing.dumps("first administrator", salt="another")
    assert not any(setup.allowed(text) for text in ("", "nonsense", foreign))


def test_an_old_token_is_refused(monkeypatch):
    token = setup.token()
    monkeypatch.setattr(setup, "_VALID_SECONDS", -1)
    assert not setup.allowed(token)
