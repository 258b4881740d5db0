"""Take the pictures of docs/quickstart.md anew: ``python -m tests.e2e.pictures``."""

from __future__ import annotations

import re
import shutil
import tempfile
from pathlib import Path

from playwright.sync_api import Page, expect

from tests.e2e.desk import Desk, chromium
from tests.e2e.site import Site
from tests.e2e.views import cell, choose, dialog, is_live, line, open_dialog, progress, state
from tests.product import ROOT

IMAGES = ROOT / "docs" / "images"
LARGEST = 150_000  # bytes
HOSTS: dict[str, float] = {"hv-ams-01": 0, "hv-ams-02": 24, "hv-ams-03": 16, "hv-fra-01": 20, "hv-fra-02": 4}


def main() -> None:
    """Start a product with hosts of its own, bring it into each situation, and write one PNG for each."""
    expect.set_options(timeout=60_000)
    folder = Path(tempfile.gettempdir(), "rasweb")  # seen in the pictures, so the same each time
    folder.mkdir()
    try:
        site = Site(folder)
        try:
            for vm in ("win11-golden", "debian13-golden", "win2025-golden"):
                site.put_vm("hv-ams-01", vm, 64)
            site.start().furnish(HOSTS)
            with chromium() as browser:
                desk = Desk(site, browser)
                _take(site, desk)
                desk.leave()
        finally:
            site.product.close()
    finally:
        shutil.rmtree(folder)


def _take(site: Site, desk: Desk) -> None:
    site.template(
        "debian13-desk", "hv-ams-01", "hv-ams-02", "hv-fra-01", guests={"hv-ams-02": 24}, vm="debian13-golden"
    )
    site.template("win2025-app", "hv-ams-01", "hv-ams-03", guests={"hv-ams-03": 8}, vm="win2025-golden")
    page = desk.sit()
    _wizard(page)
    is_live(page)
    properties = open_dialog(page, "win2025-app", "Properties")
    properties.get_by_role("checkbox", name="hv-fra-02").check()
    properties.get_by_role("button", name="Apply").click()
    expect(cell(page, "win2025-app", "distribution")).to_contain_text(re.compile(r"[1-9]\d? %"))
    expect(cell(page, "win11-office", "distribution")).to_contain_text(re.compile(r"[1-9]\d? %"))
    _without_toasts(page)
    _picture(page, "templates")

    _failed(site, page)
    _maintained(site, page)


def _wizard(page: Page) -> None:
    page.goto("/templates/new/")
    page.get_by_role("radio", name="win11-golden").check()
    page.get_by_label("Name of the template").fill("win11-office")
    page.get_by_role("button", name="Next").click()
    page.get_by_role("radio", name="Full clone").check()
    page.get_by_role("button", name="Next").click()
    page.get_by_role("button", name="Add all").click()
    expect(page.get_by_label("Target list").locator("option")).to_have_count(len(HOSTS) - 1)
    _picture(page, "wizard")
    page.get_by_role("button", name="Next").click()
    page.get_by_role("button", name="Finish").click()
    expect(page.get_by_role("heading", name="win11-office", exact=True)).to_be_visible()
    page.goto("/templates/")


def _failed(site: Site, page: Page) -> None:
    """One host has something foreign under the image's name, one is away, one is still copied to."""
    (name,) = (name for name in site.images("hv-ams-01") if name.startswith("debian13-"))
    (site.path("hv-ams-03") / "images" / name).write_bytes(b"not ours")
    properties = open_dialog(page, "debian13-desk", "Properties")
    properties.get_by_role("checkbox", name="hv-ams-03").check()
    properties.get_by_role("checkbox", name="hv-fra-02").check()
    properties.get_by_role("button", name="Apply").click()
    with site.without("hv-fra-01"):
        details = open_dialog(page, "debian13-desk", "Distribution details")
        expect(state(details, "hv-ams-03")).to_have_text("Needs update")
        expect(state(details, "hv-fra-01")).to_contain_text("Not available")
        expect(progress(details, "hv-fra-02")).to_contain_text(" left")
        _without_toasts(page)
        _picture(page, "distribution-details")
        page.keyboard.press("Escape")


def _maintained(site: Site, page: Page) -> None:
    details = open_dialog(page, "win2025-app", "Distribution details")
    expect(progress(details, "hv-fra-02")).to_contain_text("OK")
    expect(line(details, "hv-fra-02")).to_be_visible()
    page.keyboard.press("Escape")
    choose(page, "win2025-app", "Maintenance")
    dialog(page, "Maintenance — win2025-app").get_by_role("button", name="Enter maintenance").click()
    expect(cell(page, "win2025-app", "status")).to_have_text("Maintenance")
    site.change_working_copy("hv-ams-01", "win2025-app")
    leaving = open_dialog(page, "win2025-app", "Leave maintenance")
    leaving.get_by_label("Note").fill("November updates")
    _without_toasts(page)
    _picture(page, "leave-maintenance")
    leaving.get_by_role("button", name="Leave maintenance").click()
    asked = dialog(page, "Recreate guest VMs — win2025-app")
    expect(asked.get_by_role("button", name="Yes, recreate 8 guest VMs")).to_be_visible()
    _picture(page, "recreate")


def _without_toasts(page: Page) -> None:
    for button in page.get_by_role("button", name="Dismiss").all():
        button.click()


def _picture(page: Page, name: str) -> None:
    path = IMAGES / f"{name}.png"
    path.parent.mkdir(exist_ok=True)
    page.mouse.move(0, 0)
    page.screenshot(path=path, animations="disabled")
    assert path.stat().st_size < LARGEST, f"{path} is larger than {LARGEST} bytes"


if __name__ == "__main__":
    main()
