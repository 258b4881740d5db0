"""A template is maintained, and its guest VMs follow: now, later, or when a silent provider is back."""

from __future__ import annotations

from playwright.sync_api import Page, expect

from providers_app.drivers import open_driver
from tests.e2e.desk import Desk
from tests.e2e.site import Site, creation
from tests.e2e.views import (
    QUESTION,
    came_in_order,
    cell,
    choose,
    dialog,
    enter,
    is_live,
    item,
    leave,
    open_dialog,
    question,
    row,
    seen,
)


def maintained(site: Site, page: Page, name: str) -> None:
    """Through maintenance to a new version."""
    enter(page, name)
    site.change_working_copy("ams-01", name)
    leave(page, name, "Create a new version")


def disks(site: Site, host: str, guest: str) -> bytes:
    (disk,) = (site.path(host) / "guests" / guest).glob("disk0.*")
    return disk.read_bytes()


def image(site: Site, host: str, name: str, version: int) -> bytes:
    (file,) = (site.path(host) / "images").glob(f"{name}-v{version}-*")
    return file.read_bytes()


def test_in_maintenance_everything_else_is_suspended(site: Site, desk: Desk) -> None:
    site.template("closed", "ams-01", "fra-01", guests={"ams-01": 1})
    page = desk.sit()
    is_live(page)
    enter(page, "closed")
    assert came_in_order(
        seen(page, cell(page, "closed", "status")), "Ready", "Entering maintenance", "Maintenance"
    )
    grey, plain = (
        page.evaluate("row => getComputedStyle(row.cells[1]).filter", row(page, "closed").element_handle()),
        page.evaluate("() => getComputedStyle(document.querySelector('thead th')).filter"),
    )
    assert (grey, plain) == ("grayscale(0.6)", "none")
    row(page, "closed").click(button="right")
    for label in ("Retry distribution", "Recreate guest VMs", "Create guest VMs", "Delete"):
        expect(item(page, label)).to_have_attribute("aria-disabled", "true")
        expect(item(page, label)).to_contain_text("In maintenance")
    item(page, "Properties").click()
    properties = dialog(page, "Properties — closed")
    expect(properties).to_contain_text("in maintenance")
    expect(properties.get_by_role("checkbox", name="fra-01")).to_be_disabled()
    expect(properties.get_by_role("button", name="Apply")).to_be_disabled()
    page.keyboard.press("Escape")

    site.change_working_copy("ams-01", "closed")
    leave(page, "closed", "Discard the changes")
    expect(cell(page, "closed", "status")).to_have_text("Ready")
    expect(page.get_by_role("dialog")).to_be_hidden()
    expect(cell(page, "closed", "version")).to_have_text("1")
    assert not (site.path("ams-01") / "vms" / "closed-maintenance").exists()


def test_guests_are_recreated_after_a_silent_provider_came_back(site: Site, desk: Desk) -> None:
    site.template("renewed", "ams-01", "fra-01", guests={"ams-01": 1, "fra-01": 1})
    before = {host: disks(site, host, guest) for host, guest in _guests(site, "renewed")}
    page = desk.sit()
    is_live(page)
    maintained(site, page, "renewed")
    asked = question(page, "renewed")
    with site.without("fra-01"):
        asked.get_by_role("button", name="Yes, recreate 2 guest VMs").click()
        expect(asked.get_by_text("fra-01 is not responding")).to_be_visible()
        expect(asked).to_contain_text("Check the provider status")
        assert disks(site, "ams-01", "renewed-001") == before["ams-01"]
    asked.get_by_role("button", name="Check again").click()
    expect(asked).to_contain_text("All guest VMs are of the current version.")
    asked.get_by_role("button", name="Close").last.click()
    expect(cell(page, "renewed", "guests")).to_have_text("2")
    expect(cell(page, "renewed", "distribution")).to_contain_text("OK")
    expect(cell(page, "renewed", "version")).to_have_text("2")
    for host, guest in _guests(site, "renewed"):
        assert disks(site, host, guest) == image(site, host, "renewed", 2) != before[host]


def _guests(site: Site, name: str) -> list[tuple[str, str]]:
    return [
        (host, folder.name)
        for host in ("ams-01", "fra-01")
        for folder in (site.path(host) / "guests").glob(f"{name}-*")
    ]


def test_the_question_survives_and_the_guests_may_wait(site: Site, desk: Desk) -> None:
    site.template("later", "ams-01", guests={"ams-01": 2})
    page = desk.sit()
    is_live(page)
    maintained(site, page, "later")
    question(page, "later")
    page.reload()
    expect(page.get_by_role("dialog")).to_be_hidden()

    other = desk.sit("olga")
    expect(cell(other, "later", "guests")).to_contain_text("2 outdated")
    other.get_by_role("link", name="later", exact=True).click()
    notice = other.locator("[id$=-notice]")
    expect(notice.get_by_text(QUESTION)).to_be_visible()
    notice.get_by_role("button", name="Recreate guest VMs").click()
    question(other, "later").get_by_role("button", name="No, recreate later").click()
    banner = other.get_by_role("status").filter(has_text="2 guest VMs are outdated.")
    expect(banner).to_be_visible()

    asked = open_dialog(page, "later", "Recreate guest VMs")
    expect(asked.get_by_text(QUESTION, exact=True)).to_be_visible()
    asked.get_by_role("button", name="Yes, recreate 2 guest VMs").click()
    expect(asked).to_contain_text("All guest VMs are of the current version.")
    expect(banner).to_be_hidden()
    for guest in ("later-001", "later-002"):
        assert disks(site, "ams-01", guest) == image(site, "ams-01", "later", 2)


def test_unchanged_content_makes_no_version_and_no_question(site: Site, desk: Desk) -> None:
    site.template("same", "ams-01", guests={"ams-01": 1})
    page = desk.sit()
    is_live(page)
    enter(page, "same")
    leave(page, "same", "Create a new version")
    expect(cell(page, "same", "status")).to_have_text("Ready")
    expect(page.get_by_role("dialog")).to_contain_text("All guest VMs are of the current version.")
    expect(page.get_by_role("dialog").get_by_text(QUESTION)).to_have_count(0)
    page.keyboard.press("Escape")
    expect(cell(page, "same", "version")).to_have_text("1")
    expect(cell(page, "same", "guests")).to_have_text("1")


def test_a_running_working_copy_is_shut_down_in_the_dialog(site: Site, desk: Desk) -> None:
    folder = str(site.path("sim-01"))
    site.order(
        ["provider", "add", "sim-01", "--kind", "simulator", "--set", f"path={folder}", "--set", "vms=1"],
        *creation("running", "sim-01", vm="sample-1"),
    )
    page = desk.sit()
    is_live(page)
    enter(page, "running")
    choose(page, "running", "Leave maintenance")
    leaving = dialog(page, "Leave maintenance — running")
    expect(leaving.get_by_text("is shut down")).to_be_visible()
    leaving.get_by_label("Note").fill("Patches")
    with open_driver("simulator", {"path": folder, "roots": [str(site.root)]}) as host:
        (copy,) = [vm for vm in host.survey().vms if vm.mark]
        assert copy.mark is not None
        host.power(copy.name, copy.mark, True)
    leaving.get_by_role("button", name="Shut down").click()
    expect(leaving.get_by_text("is shut down")).to_be_visible()
    expect(leaving.get_by_label("Note")).to_have_value("Patches")
    leaving.get_by_role("button", name="Leave maintenance").click()
    expect(cell(page, "running", "status")).to_have_text("Ready")
    site.order(["template", "delete", "running", "--wait"], ["provider", "remove", "sim-01"])
