"""Every page and dialog fits a phone and can be read by everybody, light and dark."""

from __future__ import annotations

import hashlib
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.e2e.axe import violations
from tests.e2e.desk import Desk
from tests.e2e.site import HOSTS, Site, creation
from tests.e2e.views import is_live, menu, open_dialog, row

PHONE = 390
LONGEST = "longest-" + "n" * 55
PAGES = [
    "/", "/templates/", "/templates/1/", "/templates/2/", "/templates/new/", "/providers/", "/providers/1/",
    "/providers/3/", "/providers/new/", "/providers/1/edit/", "/guests/", "/activity/", "/search/?q=win",
    "/templates/?q=nothing", "/templates/1/properties/", "/templates/999/",
]  # fmt: skip
DIALOGS = {
    "win11": ["Properties", "Distribution details", "Maintenance", "Create guest VMs", "Delete"],
    "debian13": ["Properties", "Leave maintenance"],
}
MARKS_OF_WORK = """
document.body.insertAdjacentHTML("beforeend", `<progress class="progress"></progress><i class="spinner-border"></i>`)
"""


@pytest.fixture(scope="module")
def site(bare: Site) -> Iterator[Site]:
    """A good template with guests and a failed host, one in maintenance, and a host that is away."""
    site = bare
    site.put_vm("ams-01")
    site.furnish(HOSTS)
    site.order(*creation("win11", "ams-01", "ams-02", guests={"ams-01": 2}), *creation("debian13", "ams-01"))
    site.order(*creation(LONGEST, "ams-01"))
    (name,) = (name for name in site.images("ams-01") if name.startswith("win11-"))
    (site.path("slow-01") / "images" / name).write_bytes(b"not ours")
    site.order(
        ["template", "add-provider", "win11", "slow-01"],
        ["template", "maintenance", "debian13", "enter", "--wait"],
    )
    with site.without("fra-01"):
        yield site


def narrow(page: Page) -> bool:
    """Whether the body of the page needs no scrolling to the side."""
    return bool(
        page.evaluate("document.scrollingElement.scrollWidth <= document.scrollingElement.clientWidth")
    )


def test_pages_fit_a_phone_and_have_no_barriers(desk: Desk) -> None:
    desk.foresee("404 \\(Not Found\\)")
    page = desk.sit(width=PHONE)
    wide, found = [], []
    for path in PAGES:
        page.set_viewport_size({"width": PHONE, "height": 900})
        page.goto(path)
        wide += [] if narrow(page) else [path]
        page.set_viewport_size({"width": 1440, "height": 900})
        if path != "/templates/999/":
            is_live(page)
        found += violations(page)
    assert not wide
    assert not found, "\n".join(found)


def test_dialogs_and_menus_have_no_barriers(desk: Desk) -> None:
    page = desk.sit()
    is_live(page)
    found = []
    for name, labels in DIALOGS.items():
        row(page, name).click(button="right")
        expect(menu(page)).to_be_visible()
        found += violations(page)
        page.keyboard.press("Escape")
        for label in labels:
            open_dialog(page, name, label)
            found += violations(page)
            page.keyboard.press("Escape")
            expect(page.get_by_role("dialog")).to_be_hidden()
    page.locator("#dock summary").click()
    expect(page.locator("#dock-body table")).to_be_visible()
    found += violations(page)
    assert not found, "\n".join(found)


def test_the_login_has_no_barriers(desk: Desk) -> None:
    page = desk.sit("", "/login/", width=PHONE)
    assert narrow(page)
    page.get_by_role("button", name="Log in").click()
    assert not violations(page)


def test_marks_of_work_stand_still_where_less_motion_is_asked_for(desk: Desk) -> None:
    page = desk.sit("", "/login/")
    page.evaluate(MARKS_OF_WORK)
    assert page.evaluate("document.getAnimations().length") == 0
    page.emulate_media(reduced_motion="no-preference")
    assert page.evaluate("document.getAnimations().length") == 2


@pytest.mark.parametrize("path", ["/templates/", "/providers/", "/guests/"])
def test_what_heads_a_list_can_be_seen_and_used_on_a_phone(desk: Desk, path: str) -> None:
    page = desk.sit(path=path, width=PHONE)
    is_live(page)
    for each in page.locator("thead").locator("a, input").all():
        each.click(trial=True)
    page.locator("thead").get_by_role("link").last.click()
    expect(page).to_have_url(re.compile("sort="))
    every = page.get_by_label("Select all on this page")
    if path != "/providers/":
        every.check()
        expect(page.locator("[data-select]:not(:checked)")).to_have_count(0)


def test_dialogs_and_the_navigation_fit_a_phone(desk: Desk) -> None:
    page = desk.sit(width=PHONE)
    page.get_by_role("button", name="Menu", exact=True).click()
    expect(page.get_by_role("navigation", name="Main").get_by_role("link", name="Guest VMs")).to_be_visible()
    page.get_by_role("button", name="Menu", exact=True).click()
    for label in DIALOGS["win11"]:
        opened = open_dialog(page, "win11", label)
        box = opened.bounding_box()
        assert box
        assert box["width"] <= PHONE
        assert opened.evaluate("box => box.scrollWidth <= box.clientWidth"), label
        page.keyboard.press("Escape")
        expect(page.get_by_role("dialog")).to_be_hidden()


def test_vendored_files_are_what_was_published() -> None:
    folder = Path(__file__).parent / "vendor"
    listed = tomllib.loads((folder / "VENDORED.toml").read_text())["file"]
    assert {each["path"]: each["sha256"] for each in listed} == {
        file.name: hashlib.sha256(file.read_bytes()).hexdigest()
        for file in folder.iterdir()
        if file.suffix != ".toml"
    }
