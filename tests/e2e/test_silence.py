"""What a page says and shows while the server, or a host, does not answer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from playwright.sync_api import Locator, Page, Route, expect

from tests.e2e.desk import Desk
from tests.e2e.site import Site
from tests.e2e.views import is_live, item, row

GONE = "The server does not answer."
REFRESH = """
htmx.on("htmx:afterRequest", ({ detail }) => setTimeout(() => (document.body.dataset.failed = !detail.successful), 50));
document.body.dispatchEvent(new Event("live:refresh"));
"""


@pytest.fixture(scope="module")
def site(site: Site) -> Site:
    site.template("unheard", "ams-01")
    return site


@pytest.fixture
def page(site: Site, desk: Desk) -> Page:
    page = desk.sit(path="/templates/?q=unheard")
    is_live(page)
    desk.foresee("net::ERR|htmx:sendError|htmx:timeout|htmx:afterRequest")
    return page


@contextmanager
def silent(page: Page, how: str) -> Iterator[None]:
    """Meanwhile the server refuses connections, or takes them and says nothing."""
    held: list[Route] = []
    page.evaluate("htmx.config.timeout = 300")
    page.route("**/*", lambda route: route.abort() if how == "gone" else held.append(route))
    yield
    for route in held:
        route.abort()


def toasts(page: Page) -> Locator:
    return page.locator(".toast")


@pytest.mark.parametrize("how", ["gone", "hanging"])
def test_a_click_that_is_not_answered_is_complained_of(page: Page, how: str) -> None:
    row(page, "unheard").get_by_role("button", name="Tasks of unheard").click()
    expect(item(page, "Properties")).to_be_visible()
    with silent(page, how):
        item(page, "Properties").click()
        expect(toasts(page)).to_contain_text(GONE)
    expect(page.get_by_role("dialog")).to_be_hidden()


@pytest.mark.parametrize("how", ["gone", "hanging"])
def test_a_menu_that_is_not_answered_is_complained_of(page: Page, how: str) -> None:
    with silent(page, how):
        page.locator("#tasks").click()
        expect(toasts(page)).to_contain_text(GONE)
    expect(page.locator("#menu")).to_be_hidden()


@pytest.mark.parametrize("how", ["gone", "hanging"])
def test_a_refresh_that_nobody_asked_for_fails_without_a_word(page: Page, how: str) -> None:
    with silent(page, how):
        page.evaluate(REFRESH)
        expect(page.locator("body")).to_have_attribute("data-failed", "true")
    expect(toasts(page)).to_have_count(0)


def test_a_check_that_takes_its_time_shows_that_it_runs(site: Site, desk: Desk) -> None:
    page = desk.sit(path="/providers/1/")
    is_live(page)
    held: list[Route] = []
    page.route("**/check/", lambda route: held.append(route))
    button = page.get_by_role("button", name="Check now")
    button.focus()
    page.keyboard.press("Enter")
    expect(button).to_have_css("cursor", "progress")
    expect(button).to_have_css("opacity", "0.6")
    button.dispatch_event("click")
    held[0].continue_()
    expect(page.locator("#toasts")).to_contain_text("answers.")
    expect(button).to_have_css("opacity", "1")
    expect(button).to_be_focused()
    assert len(held) == 1
