"""The product as it is started at first, and as a larger site runs it."""

import json
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.product import Product
from tests.rasweb.servers import PostgresServer, RedisServer
from tests.websocket import WebSocket

pytestmark = pytest.mark.product

LOST_SECONDS = 15.0  # a poke that was lost is found within five

SIGN_IN = """
from importlib import import_module
from django.conf import settings
from django.contrib.auth import HASH_SESSION_KEY, SESSION_KEY, BACKEND_SESSION_KEY, get_user_model
User = get_user_model()
user = User.objects.filter(username="ada").first() or User.objects.create_superuser("ada", password="secret")
session = import_module(settings.SESSION_ENGINE).SessionStore()
session[SESSION_KEY] = str(user.pk)
session[BACKEND_SESSION_KEY] = settings.AUTHENTICATION_BACKENDS[0]
session[HASH_SESSION_KEY] = user.get_session_auth_hash()
session.save()
print(f"{settings.SESSION_COOKIE_NAME}={session.session_key}")
"""


def signed_in(product: Product) -> str:
    """The cookie of a session of a new administrator."""
    return product.order("shell", "-v0", "-c", SIGN_IN).stdout.strip()


@contextmanager
def open_page(product: Product) -> Iterator[WebSocket]:
    """A browser that shows the providers, of which there is one."""
    host = product.data_dir / "hosts" / "ams"
    host.mkdir(parents=True)
    product.order("provider", "add", "ams", "--kind", "directory", "--set", f"path={host}")
    browser = WebSocket(product.base_url, "/ws/?topic=providers", signed_in(product))
    assert browser.status == 101
    assert browser.next() == {"hello": True}
    yield browser
    browser.close()


def shows_what_a_command_does(browser: WebSocket, product: Product) -> None:
    for verb in ("disable", "enable"):
        product.order("provider", verb, "ams")
        assert "provider-1-" in browser.frame("providers", seconds=LOST_SECONDS)["parts"]


def test_the_first_start_needs_no_other_server(product):
    product.first = True
    product.start()
    with open_page(product) as browser:
        shows_what_a_command_does(browser, product)
    foreign = WebSocket(product.base_url, "/ws/?topic=providers", "", origin="http://evil.example")
    assert foreign.status == 403
    foreign.close()


def test_a_site_with_postgresql_and_redis_works_alike(product, tmp_path):
    database, redis = PostgresServer(), RedisServer(tmp_path)
    try:
        product.env |= {"RASWEB_DATABASE_URL": database.start().url, "RASWEB_REDIS_URL": redis.start().url}
        early = product.run("up", check=False)
        assert (early.returncode, early.stderr.count("\n")) == (1, 1)
        assert "Run manage.py migrate" in early.stderr
        product.run("migrate", "-v0")
        product.start()
        assert product.get("/readyz") == 200
        with open_page(product) as browser:
            shows_what_a_command_does(browser, product)
            redis.stop()
            redis.start()
            shows_what_a_command_does(browser, product)
    finally:
        product.close()
        redis.stop()
        database.stop()


def test_on_postgresql_an_order_and_a_worker_never_wait_for_each_other(product):
    database = PostgresServer()
    try:
        product.env |= {"RASWEB_DATABASE_URL": database.start().url}
        product.order("migrate", "-v0")
        meet = "from tests.templates_app import rivals; rivals.meet()"
        came = json.loads(product.order("shell", "-v0", "-c", meet).stdout)
        assert came == {"faults": [], "phase": "checking", "newest": True}
    finally:
        product.close()
        database.stop()
