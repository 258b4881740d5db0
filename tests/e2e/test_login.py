"""The first start: a link, an administrator, a login."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, expect

from tests.e2e.desk import Desk
from tests.e2e.site import Site
from tests.product import wait_for

PASSWORD = "correct-horse-battery"


@pytest.fixture
def desk(bare: Site, browser: Browser) -> Iterator[Desk]:
    desk = Desk(bare, browser)
    yield desk
    desk.leave()


def test_the_printed_link_makes_one_administrator_who_can_log_in_again(bare: Site, desk: Desk) -> None:
    link = wait_for(
        lambda: re.search(r"here \(works once.*?\): (\S+)\n", bare.product.output), what="the link"
    )
    stranger = desk.sit("", "/templates/")
    expect(stranger).to_have_url(re.compile("/login/"))

    page = desk.sit("", link[1])
    page.get_by_label("Username").fill("grace")
    page.get_by_label("Password", exact=True).fill("grace")
    page.get_by_label("confirmation").fill("grace")
    page.get_by_role("button", name="Create").click()
    expect(page.get_by_role("alert").first).to_contain_text("too")  # too short, too similar
    page.get_by_label("Password", exact=True).fill(PASSWORD)
    page.get_by_label("confirmation").fill(PASSWORD)
    page.get_by_role("button", name="Create").click()
    expect(page.get_by_role("heading", name="Overview")).to_be_visible()
    expect(page.get_by_role("heading", name="First steps")).to_be_visible()

    desk.foresee("404 \\(Not Found\\)")
    stranger.goto(link[1])
    expect(stranger.get_by_role("heading")).to_have_text("This link is not valid any more")

    page.get_by_role("button", name="grace").click()
    page.get_by_role("menuitem", name="Log out").click()
    expect(page.get_by_role("heading", name="Log in")).to_be_visible()
    page.get_by_label("Username").fill("grace")
    page.get_by_label("Password").fill("wrong")
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_role("alert")).to_contain_text("correct username and password")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_role("heading", name="Overview")).to_be_visible()
