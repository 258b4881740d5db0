"""Who guesses passwords has few tries, and nobody is locked out for ever."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.cache import cache
from django.test import Client

from rasweb import guessing
from tests.rasweb.servers import RedisServer

PASSWORD = "correct horse battery staple"
REDIS = "django.core.cache.backends.redis.RedisCache"


class Clock:
    now = 1_000_000_200.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(autouse=True)
def clock(db: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Clock]:
    """A time that stands still, a minute and a half before the end of a period."""
    clock = Clock()
    clock.now += guessing.PERIOD_SECONDS - clock.now % guessing.PERIOD_SECONDS - 90
    monkeypatch.setattr(guessing, "clock", clock)
    User.objects.create_user("ada", password=PASSWORD)
    cache.clear()
    yield clock
    cache.clear()


def enter(password: str = "guess", name: str = "ada", **sent: Any) -> Any:
    return Client().post("/login/", {"username": name, "password": password}, **sent)


def test_after_ten_wrong_passwords_not_even_the_right_one_is_looked_at(clock: Clock) -> None:
    assert {enter().status_code for _ in range(10)} == {200}
    for password in ("guess", PASSWORD):
        response = enter(password)
        assert response.status_code == 429
        assert (
            "There were too many tries to log in. Wait 1 min 30 s, then try again."
            in response.content.decode()
        )


def test_the_right_password_works_after_the_pause_however_many_tried_in_it(clock: Clock) -> None:
    assert [enter().status_code for _ in range(25)][-1] == 429
    clock.now += 90
    assert enter(PASSWORD).status_code == 302


def test_case_makes_no_other_name_and_another_name_is_not_concerned() -> None:
    for number in range(10):
        enter(name="ada" if number % 2 else "ADA")
    assert enter(PASSWORD).status_code == 429
    User.objects.create_user("bob", password=PASSWORD)
    assert enter(PASSWORD, "bob").status_code == 302


def test_whoever_knows_the_password_may_mistype_it_again() -> None:
    for _ in range(3):
        assert {enter().status_code for _ in range(9)} == {200}
        assert enter(PASSWORD).status_code == 302


def test_an_address_has_no_more_tries_with_ever_other_names() -> None:
    assert {enter(name=f"name{number}").status_code for number in range(50)} == {200}
    assert {enter(password).status_code for password in ("guess",) * 10 + (PASSWORD,)} == {429}
    assert enter(PASSWORD, REMOTE_ADDR="192.0.2.7").status_code == 302  # its tries were left alone


def test_right_passwords_do_not_use_up_the_tries_of_an_address() -> None:
    assert {enter(PASSWORD).status_code for _ in range(60)} == {302}


@pytest.mark.parametrize("last", ["192.0.2.7", "2001:db8::1"])
def test_behind_a_proxy_the_address_is_the_one_that_the_proxy_saw(settings: Any, last: str) -> None:
    settings.SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
    for number in range(50):
        enter(name=f"name{number}", HTTP_X_FORWARDED_FOR=f"198.51.100.{number}, {last}")
    assert enter(PASSWORD, HTTP_X_FORWARDED_FOR=last).status_code == 429
    assert enter(PASSWORD, HTTP_X_FORWARDED_FOR="203.0.113.5").status_code == 302


def test_a_network_of_ipv6_counts_as_one_address() -> None:
    for number in range(50):
        enter(name=f"name{number}", REMOTE_ADDR=f"2001:db8:0:1::{number:x}")
    assert enter(PASSWORD, REMOTE_ADDR="2001:db8:0:1:ffff::1").status_code == 429
    assert enter(PASSWORD, REMOTE_ADDR="2001:db8:0:2::1").status_code == 302


def test_many_tries_at_once_are_counted_all() -> None:
    def begin(_: int) -> bool:
        return guessing.Try(request, "eve").begin()

    request = Client().get("/login/").wsgi_request
    with ThreadPoolExecutor(8) as threads:
        assert sum(threads.map(begin, range(40))) == guessing.TRIES["name"]


def test_a_cache_that_is_away_keeps_nobody_out(settings: Any, tmp_path: Path) -> None:
    settings.CACHES = {"default": {"BACKEND": REDIS, "LOCATION": f"unix://{tmp_path}/none.sock"}}
    assert enter(PASSWORD).status_code == 302


def test_processes_share_the_counts_through_redis(settings: Any, tmp_path: Path) -> None:
    server = RedisServer(tmp_path).start()
    try:
        for _ in range(2):  # as two processes would, which have nothing else in common
            settings.CACHES = {"default": {"BACKEND": REDIS, "LOCATION": server.url, "KEY_PREFIX": "rasweb"}}
            assert {enter().status_code for _ in range(5)} == {200}
        assert enter(PASSWORD).status_code == 429
        assert enter(PASSWORD, "bob").status_code == 200
    finally:
        server.stop()
