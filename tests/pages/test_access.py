"""One declared table says who may do what. Every address is tried as every role, by every method."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product

import pytest
from django.test import Client
from django.urls import URLPattern, URLResolver, get_resolver, reverse

from rasweb import access
from templates_app.models import GuestVM, Template

LOGINS = ["stranger", None, access.VIEWER, access.OPERATOR, access.ADMINISTRATOR]
ARGS = {"token": "no-token", "verb": "delete", "to": "on"}


def routes() -> Iterator[tuple[str, tuple[str, ...]]]:
    """Name and arguments of every address of ours; the admin is one of its own."""

    def walk(patterns: list[URLPattern | URLResolver]) -> Iterator[tuple[str, tuple[str, ...]]]:
        for pattern in patterns:
            if isinstance(pattern, URLPattern):
                yield pattern.name or "", tuple(pattern.pattern.converters)
            elif pattern.namespace != "admin":
                yield from walk(pattern.url_patterns)

    yield from walk(get_resolver().url_patterns)


ROUTES = dict(routes())


def address(name: str, template: Template) -> str:
    subject = name.partition("-")[0]
    rows = {
        "target": template.targets.exclude(phase="installed").first(),
        "guest": GuestVM.objects.first(),
        "provider": template.source_provider,
        "version": template.current_version,
    }
    row = template if name == "guest-new" else rows.get(subject, template)
    assert row is not None
    return reverse(name, kwargs={arg: ARGS.get(arg, row.pk) for arg in ROUTES[name]})


def test_every_route_is_in_the_table_and_the_table_has_no_other() -> None:
    assert set(ROUTES) == set(access.MATRIX)


@pytest.mark.parametrize(
    ("login_as", "method"),
    [*product(LOGINS, ["GET", "POST"]), (access.ADMINISTRATOR, "PUT")],  # PUT is for nobody
)
def test_every_route_answers_each_role_as_declared(
    login_as: str | None, method: str, busy: Template, login: Callable[[str | None], Client]
) -> None:
    client = Client() if login_as == "stranger" else login(login_as)
    for name, declared in access.MATRIX.items():
        if name in ("logout", "setup"):
            continue
        response = client.generic(
            method, address(name, busy), content_type="application/x-www-form-urlencoded"
        )
        needed = declared.get(method)
        sent_away = response.status_code == 302 and response["Location"].startswith("/login/")
        if needed == access.EVERYBODY:
            allowed = True
        elif login_as == "stranger":
            assert sent_away or response.status_code == 403, (name, method)
            continue
        else:
            allowed = needed is not None and not access.needs(login_as, needed)
        assert login_as == "stranger" or not sent_away, (name, method)
        assert (response.status_code != 403) == allowed, (name, method, login_as, response.status_code)
        assert response.status_code < 500, (name, method, login_as)


@pytest.mark.parametrize("role", [None, access.VIEWER, access.OPERATOR, access.ADMINISTRATOR])
def test_only_administrators_come_into_the_admin(
    role: str | None, login: Callable[[str | None], Client]
) -> None:
    status = login(role).get("/admin/").status_code
    assert status == (200 if role == access.ADMINISTRATOR else 403)


def test_a_stranger_is_sent_from_the_admin_to_the_login(db: None) -> None:
    assert Client().get("/admin/", follow=True).request["PATH_INFO"] == "/login/"


def test_nothing_changes_by_get(busy: Template, administrator: Client) -> None:
    before = (busy.events.count(), busy.revision, list(busy.targets.values_list("pk", "revision")))
    for name, declared in access.MATRIX.items():
        if "GET" in declared and name != "setup":
            administrator.get(address(name, busy))
    busy.refresh_from_db()
    assert (busy.events.count(), busy.revision, list(busy.targets.values_list("pk", "revision"))) == before


def test_an_order_without_its_safety_token_is_not_accepted(
    busy: Template, login: Callable[[str | None], Client]
) -> None:
    strict = Client(enforce_csrf_checks=True)
    strict.cookies = login(access.ADMINISTRATOR).cookies
    response = strict.post(reverse("template-delete", args=[busy.pk]))
    assert response.status_code == 403
    assert "The form was not accepted" in response.content.decode()
    busy.refresh_from_db()
    assert busy.phase == "ready"
