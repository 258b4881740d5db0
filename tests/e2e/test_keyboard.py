"""What the keyboard alone does: Enter goes on, focus stays where the work is, and nothing covers it."""

from __future__ import annotations

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.e2e.desk import Desk
from tests.e2e.site import Site
from tests.e2e.views import is_live, open_dialog

MANY = 40
# Hosts that are nowhere; on each of them a copy of the template failed.
_FAILED_HOSTS = """
from providers_app.models import Provider
from templates_app.models import DistributionTarget, Template
for number in range({many}):
    host = Provider.objects.create(
        name=f"row-{{number:02d}}", kind="directory", settings={{"path": f"/none/{{number}}"}}, enabled=False,
        host_id=f"row-{{number}}"
    )
    DistributionTarget.objects.create(
        template=Template.objects.get(name="{template}"), provider=host, phase="failed", error_code="NO_SPACE"
    )
"""
COVERED = """
(each) => {
  const box = each.getBoundingClientRect();
  const there = document.elementFromPoint(box.left + box.width / 2, box.top + box.height / 2);
  return each !== there && !each.contains(there) && !each.closest("label, li").contains(there);
}
"""


@pytest.fixture(scope="module")
def site(bare: Site) -> Site:
    bare.put_vm("ams-01")
    bare.furnish({"ams-01": 0, "ams-02": 0}).template("tall", "ams-01")
    bare.product.run("shell", "-v0", "-c", _FAILED_HOSTS.format(many=MANY, template="tall"))
    return bare


def covered(page: Page, opened: Locator) -> list[str]:
    """What Tab reaches in a dialog, from its beginning to its end, and can not be seen there."""
    opened.get_by_role("button", name="Close").first.focus()
    found: list[str] = []
    while True:
        page.keyboard.press("Tab")
        here = page.locator(":focus")
        if not here.count() or here.get_attribute("data-close") is not None:
            return found
        if here.evaluate(COVERED):
            found.append(here.evaluate("each => each.outerHTML.slice(0, 200)"))


@pytest.mark.parametrize("label", ["Distribution details", "Properties"])
def test_nothing_covers_what_the_keyboard_is_at(desk: Desk, label: str) -> None:
    page = desk.sit(path="/templates/?q=tall")
    is_live(page)
    assert not covered(page, open_dialog(page, "tall", label))


def test_enter_goes_on_from_step_to_step_and_focus_goes_with_it(desk: Desk) -> None:
    page = desk.sit(path="/templates/new/")
    page.get_by_role("radio", name="win11-golden").check()
    page.get_by_label("Name of the template").fill("typed")
    page.keyboard.press("Enter")
    at_step(page, "Clone method")
    page.get_by_role("radio", name="Full clone").press("Enter")
    at_step(page, "Distribution")
    page.get_by_label("Number of providers for concurrent distribution").press("Enter")
    at_step(page, "Summary")


def at_step(page: Page, name: str) -> None:
    expect(page.locator(".step-item.active")).to_have_text(name)
    expect(page.locator(".step-item.active")).to_be_focused()


def test_a_button_of_the_wizard_keeps_the_focus_and_a_fault_takes_it(desk: Desk) -> None:
    page = desk.sit(path="/templates/new/")
    page.get_by_role("radio", name="win11-golden").check()
    page.get_by_role("button", name="Next").press("Enter")
    expect(page.get_by_label("Name of the template")).to_be_focused()
    page.get_by_label("Name of the template").fill("typed")
    page.get_by_role("button", name="Next").press("Enter")
    expect(page.get_by_role("radio", name="Full clone")).to_be_visible()
    page.get_by_role("button", name="Next").press("Enter")
    page.get_by_role("button", name="Add all").press("Enter")
    expect(page.get_by_label("Available").locator("option")).to_have_count(0)
    expect(page.get_by_role("button", name="Add all")).to_be_focused()
