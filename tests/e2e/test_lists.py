"""Menus, keys and selections of the lists, and what each role may do with them."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Page, expect

from tests.e2e.desk import Desk
from tests.e2e.site import Site, creation
from tests.e2e.views import cell, choose, dialog, is_live, item, menu, open_dialog, row

ITEMS = [
    "Properties", "Distribution details", "Maintenance", "Recreate guest VMs", "Retry distribution",
    "Create guest VMs", "Delete",
]  # fmt: skip
LIST = "/templates/?q=office"


@pytest.fixture(scope="module")
def site(site: Site) -> Site:
    site.order(
        *creation("office-debian", "ams-01", "fra-01", guests={"fra-01": 1}),
        *creation("office-win11", "ams-01"),
    )
    return site


@pytest.fixture
def page(desk: Desk) -> Page:
    page = desk.sit(path=LIST)
    is_live(page)
    return page


def opened_by(page: Page, way: str) -> None:
    """Open the menu of the row of office-win11."""
    if way == "right click":
        cell(page, "office-win11", "status").click(button="right")
    elif way == "button":
        row(page, "office-win11").get_by_role("button", name="Tasks of office-win11").click()
    else:
        row(page, "office-win11").get_by_role("link", name="office-win11", exact=True).focus()
        page.keyboard.press(way)


@pytest.mark.parametrize("way", ["right click", "button", "Shift+F10", "ContextMenu"])
def test_every_way_opens_the_same_menu(page: Page, way: str) -> None:
    opened_by(page, way)
    expect(menu(page).get_by_role("menuitem")).to_contain_text(ITEMS)
    expect(menu(page)).to_contain_text("office-win11")
    expect(item(page, "Properties")).to_be_focused()
    page.keyboard.press("ArrowDown")
    expect(item(page, "Distribution details")).to_be_focused()
    page.keyboard.press("End")
    expect(item(page, "Delete")).to_be_focused()
    page.keyboard.press("Escape")
    expect(menu(page)).to_be_hidden()
    opened_by(page, way)
    expect(item(page, "Properties")).to_be_focused()
    page.keyboard.press("Enter")
    expect(dialog(page, "Properties — office-win11")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()


def test_what_does_not_apply_is_disabled_and_says_why(page: Page) -> None:
    opened_by(page, "button")
    for label, reason in (
        ("Retry distribution", "Nothing failed"),
        ("Recreate guest VMs", "No guest VM is outdated"),
    ):
        expect(item(page, label)).to_have_attribute("aria-disabled", "true")
        expect(item(page, label)).to_contain_text(reason)
    item(page, "Recreate guest VMs").click(force=True)
    expect(menu(page)).to_be_visible()
    expect(page.get_by_role("dialog")).to_be_hidden()


def test_shift_and_right_click_is_left_to_the_browser(page: Page) -> None:
    page.evaluate(
        "addEventListener('contextmenu', (event) => {"
        " window.captured = event.defaultPrevented; event.preventDefault(); })"
    )
    cell(page, "office-win11", "status").click(button="right", modifiers=["Shift"])
    assert page.evaluate("window.captured") is False
    expect(menu(page)).to_be_hidden()
    cell(page, "office-win11", "status").click(button="right")
    expect(menu(page)).to_be_visible()
    assert page.evaluate("window.captured") is True


def test_the_tasks_menu_acts_on_the_selection_and_a_live_change_keeps_it(site: Site, page: Page) -> None:
    page.locator("#tasks").click()
    expect(item(page, "Properties")).to_contain_text("Select a template first")
    page.keyboard.press("Escape")
    row(page, "office-win11").get_by_role("checkbox").check()
    expect(page.locator("#selection")).to_contain_text("1 selected")
    site.product.order(
        "guest", "create", "office-debian", "--provider", "fra-01", "--prefix", "live", "--wait"
    )
    expect(cell(page, "office-debian", "guests")).to_have_text("2")
    expect(row(page, "office-win11").get_by_role("checkbox")).to_be_checked()
    page.locator("#tasks").click()
    expect(menu(page)).to_contain_text("office-win11")
    page.keyboard.press("Escape")
    page.get_by_label("Select all on this page").check()
    page.locator("#tasks").click()
    expect(item(page, "Properties")).to_contain_text("Select one template")
    expect(item(page, "Maintenance")).not_to_have_attribute("aria-disabled", "true")


def test_keys_go_to_pages_rows_and_the_search(page: Page) -> None:
    page.keyboard.press("j")
    expect(row(page, "office-debian").get_by_role("link").first).to_be_focused()
    page.keyboard.press("j")
    page.keyboard.press("x")
    expect(row(page, "office-win11").get_by_role("checkbox")).to_be_checked()
    page.keyboard.press("?")
    expect(dialog(page, "Keyboard shortcuts")).to_be_visible()
    page.keyboard.press("Escape")
    page.keyboard.press("/")
    page.keyboard.type("office-deb")
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile("/search/"))
    expect(page.locator("#main").get_by_role("link", name="office-debian", exact=True)).to_be_visible()
    page.keyboard.press("g")
    page.keyboard.press("p")
    expect(page).to_have_url(re.compile("/providers/$"))


def test_the_state_of_a_list_lives_in_its_address(page: Page) -> None:
    page.get_by_role("searchbox", name="Filter templates").fill("office-deb")
    page.get_by_role("button", name="Filter", exact=True).click()
    expect(page).to_have_url(re.compile("q=office-deb"))
    page.get_by_role("link", name="Version").click()
    expect(page).to_have_url(re.compile("q=office-deb.*sort=version"))
    page.reload()
    expect(page.locator("tr[data-row]")).to_have_count(1)
    expect(row(page, "office-debian")).to_be_visible()


def test_a_viewer_sees_everything_and_can_change_nothing(site: Site, desk: Desk) -> None:
    page = desk.sit("vera", LIST)
    is_live(page)
    expect(page.get_by_role("link", name="Create template")).to_be_hidden()
    row(page, "office-win11").get_by_role("button", name="Tasks of office-win11").click()
    for label in ITEMS[2:]:
        expect(item(page, label)).to_have_attribute("aria-disabled", "true")
        expect(item(page, label)).to_contain_text("Needs the role Operator")
    page.keyboard.press("Escape")
    properties = open_dialog(page, "office-win11", "Properties")
    expect(properties.get_by_role("checkbox", name="fra-01")).to_be_disabled()
    expect(properties.get_by_role("button", name="Apply")).to_be_hidden()
    page.keyboard.press("Escape")
    details = open_dialog(page, "office-win11", "Distribution details")
    expect(details.get_by_role("button", name="Retry all failed")).to_be_hidden()
    page.keyboard.press("Escape")
    orders_by_address_are_refused(page)
    for path in ("/", "/templates/", "/providers/", "/guests/", "/activity/"):
        page.goto(path)
        for name in ("Create", "Add", "Retry", "Check now", "Edit", "Leave"):
            expect(page.locator("#main").get_by_role("button", name=name)).to_have_count(0)
    desk.foresee("403 \\(Forbidden\\)")
    for path in ("/templates/new/", "/providers/new/", "/admin/"):
        page.goto(path)
        expect(page.locator("main")).to_contain_text("role")
    expect(page.get_by_role("link", name="Django admin")).to_have_count(0)


def orders_by_address_are_refused(page: Page) -> None:
    """What a viewer sends without a button, with the right token, is refused and changes nothing."""
    statuses = page.evaluate(
        """async () => {
          const headers = { ...JSON.parse(document.body.getAttribute("hx-headers")), "HX-Request": "true" };
          const links = [...document.querySelectorAll("tr[data-row] a[data-row-link]")].map((link) => link.pathname);
          const verbs = ["properties/", "delete/", "maintenance/enter/"];
          const orders = links.flatMap((link) => verbs.map((verb) => link + verb));
          return Promise.all(orders.map(async (url) => (await fetch(url, { method: "POST", headers })).status));
        }"""
    )
    assert statuses
    assert set(statuses) == {403}


def test_an_operator_works_with_templates_but_not_with_connections(desk: Desk) -> None:
    page = desk.sit("olga", LIST)
    expect(page.get_by_role("link", name="Create template")).to_be_visible()
    choose(page, "office-debian", "Maintenance")
    expect(
        dialog(page, "Maintenance — office-debian").get_by_role("button", name="Enter maintenance")
    ).to_be_enabled()
    page.goto("/providers/")
    expect(page.get_by_role("link", name="Add provider")).to_be_hidden()
    page.get_by_role("row", name="fra-01").click(button="right")
    expect(item(page, "Edit")).to_contain_text("Needs the role Administrator")
    item(page, "Check now").click()
    expect(page.get_by_role("row", name="fra-01")).to_contain_text("Ready")
    desk.foresee("403 \\(Forbidden\\)")
    page.goto("/providers/new/")
    expect(page.locator("main")).to_contain_text("role")


def test_an_administrator_adds_a_host_and_sees_it_come_and_go(site: Site, desk: Desk) -> None:
    folder = site.path("rack-1")
    folder.mkdir()
    page = desk.sit("ada", "/providers/")
    page.get_by_role("link", name="Add provider").first.click()
    page.get_by_label("Name", exact=True).fill("rack-1")
    page.get_by_label("Folder").fill("/etc")
    page.get_by_role("button", name="Test connection").click()
    expect(page.locator("#tested")).to_contain_text("/etc")
    page.get_by_label("Folder").fill(str(folder))
    page.get_by_role("button", name="Add", exact=True).click()
    expect(page.get_by_role("heading", name="rack-1")).to_be_visible()
    page.goto("/providers/")
    line = page.get_by_role("row", name="rack-1")
    expect(line).to_contain_text("Ready")
    with site.without("rack-1"):
        expect(line).to_contain_text("Not available")
    expect(line).to_contain_text("Ready")
    line.click(button="right")
    item(page, "Disable").click()
    expect(line).to_contain_text("Disabled")
    line.click(button="right")
    item(page, "Delete").click()
    dialog(page, "Delete — rack-1").get_by_role("button", name="Delete").click()
    expect(line).to_have_count(0)


def test_another_kind_of_host_keeps_the_name_and_the_focus(desk: Desk) -> None:
    page = desk.sit(path="/providers/new/")
    page.get_by_label("Name", exact=True).fill("rack-2")
    page.get_by_label("Copies at once").fill("3")
    kind = page.get_by_label("Kind")
    kind.focus()
    kind.select_option("libvirt")
    expect(page.get_by_label("Folder")).to_have_count(0)
    expect(page.get_by_label("Name", exact=True)).to_have_value("rack-2")
    expect(page.get_by_label("Copies at once")).to_have_value("3")
    expect(kind).to_be_focused()


def test_guest_vms_are_created_and_deleted(site: Site, desk: Desk) -> None:
    page = desk.sit(path=LIST)
    creation = open_dialog(page, "office-win11", "Create guest VMs")
    creation.get_by_label("Number of guest VMs").fill("2")
    creation.get_by_label("Name begins with").fill("desk")
    creation.get_by_role("button", name="Create").click()
    expect(cell(page, "office-win11", "guests")).to_have_text("2")
    page.goto("/guests/?template=&q=desk")
    for name in ("desk-001", "desk-002"):
        expect(page.get_by_role("row", name=name)).to_contain_text("Ready")
        assert (site.path("ams-01") / "guests" / name).is_dir()
    page.get_by_role("row", name="desk-001").click(button="right")
    item(page, "Delete").click()
    deletion = dialog(page, "Delete 1 guest VM")
    deletion.get_by_role("textbox").fill("7")
    deletion.get_by_role("button", name="Delete").click()
    expect(deletion).to_contain_text("Nothing was deleted")
    deletion.get_by_role("textbox").fill("1")
    deletion.get_by_role("button", name="Delete").click()
    expect(page.get_by_role("row", name="desk-001")).to_have_count(0)
    expect(page.get_by_role("row", name="desk-002")).to_be_visible()
    assert not (site.path("ams-01") / "guests" / "desk-001").exists()
