"""Templates come to hosts and go from them, and the pages tell how far it is without a reload."""

from __future__ import annotations

import re

from playwright.sync_api import Page, expect

from tests.e2e.desk import Desk
from tests.e2e.site import Site
from tests.e2e.views import (
    came_in_order,
    cell,
    dialog,
    is_live,
    line,
    open_dialog,
    progress,
    row,
    seen,
    set_provider,
    state,
)
from tests.product import wait_for

# As when a live update takes a button away while its order is under way.
GONE_AT_ONCE = """
document.body.addEventListener("htmx:beforeSend", function gone({ detail: { elt } }) {
  if (!elt.matches("button")) return; // the list behind the dialog may be read again at this very moment
  elt.remove();
  document.body.removeEventListener("htmx:beforeSend", gone);
});
"""


def test_the_wizard_makes_a_template_and_another_browser_sees_it_come(site: Site, desk: Desk) -> None:
    other = desk.sit("olga")
    is_live(other)
    page = desk.sit()
    page.get_by_role("link", name="Create template").first.click()
    page.get_by_role("button", name="Next").click()
    expect(page.get_by_text("Choose a VM.")).to_be_visible()
    page.get_by_role("radio", name="win11-golden").check()
    page.get_by_label("Name of the template").fill("win11")
    page.get_by_role("button", name="Next").click()
    expect(page.get_by_role("radio", name="Full clone")).to_be_checked()
    page.get_by_role("radio", name="Linked clone").check()
    page.get_by_role("button", name="Next").click()
    _fill_the_target_list(page)
    page.get_by_role("button", name="Next").click()
    summary = page.locator("#wizard dl")
    for words in ("win11", "win11-golden · ams-01", "Linked clone", "ams-01, ams-02, fra-01", "2"):
        expect(summary).to_contain_text(words)
    page.get_by_role("button", name="Finish").click()
    expect(page.get_by_role("heading", name="win11", exact=True)).to_be_visible()

    distribution = cell(other, "win11", "distribution")
    expect(distribution).to_contain_text("OK")
    expect(cell(other, "win11", "ready")).to_have_text("3/3 ready")
    expect(cell(other, "win11", "status")).to_have_text("Ready")
    assert came_in_order(seen(other, distribution), "Distributing", "OK")
    source = (site.path("ams-01") / "vms/win11-golden/disk0.raw").read_bytes()
    for host in ("ams-01", "ams-02", "fra-01"):
        (name,) = (name for name in site.images(host) if name.startswith("win11-"))
        assert (site.path(host) / "images" / name).read_bytes() == source


def _fill_the_target_list(page: Page) -> None:
    available, targets = page.get_by_label("Available"), page.get_by_label("Target list")
    expect(available.locator("option")).to_have_count(3)
    available.select_option(index=0)
    page.get_by_role("button", name="Add", exact=True).click()
    expect(targets.locator("option")).to_have_text(["ams-02"])
    targets.select_option(index=0)
    page.get_by_role("button", name="Remove", exact=True).click()
    expect(targets.locator("option")).to_have_count(0)
    page.get_by_role("button", name="Add all").click()
    expect(targets.locator("option")).to_have_text(["ams-02", "fra-01", "slow-01"])
    expect(available.locator("option")).to_have_count(0)
    targets.select_option(label="slow-01")
    page.get_by_role("button", name="Remove", exact=True).click()
    expect(targets.locator("option")).to_have_text(["ams-02", "fra-01"])
    page.get_by_label("Number of providers for concurrent distribution").fill("2")


def test_properties_add_and_remove_a_provider(site: Site, desk: Desk) -> None:
    site.template("grown", "ams-01")
    page = desk.sit()
    is_live(page)
    distribution = cell(page, "grown", "distribution")
    properties = open_dialog(page, "grown", "Properties")
    choice = properties.get_by_role("listitem").filter(has=page.get_by_role("checkbox", name="fra-01"))
    for check in ("Same kind", "Location", "Network", "Free space"):
        expect(choice.get_by_text(f"fulfilled: {check}")).to_have_count(1)
    expect(properties.get_by_role("checkbox", name="ams-01")).to_be_disabled()
    properties.get_by_role("checkbox", name="fra-01").check()
    properties.get_by_role("button", name="Apply").click()
    expect(properties).to_be_hidden()
    expect(distribution).to_contain_text("OK")
    assert came_in_order(seen(page, distribution), "OK", "Adding provider", "OK")
    expect(cell(page, "grown", "ready")).to_have_text("2/2 ready")
    assert any(name.startswith("grown-v1-") for name in site.images("fra-01"))

    set_provider(page, "grown", "fra-01", listed=False)
    expect(cell(page, "grown", "ready")).to_have_text("1/1 ready")
    expect(distribution).to_contain_text("OK")
    assert came_in_order(seen(page, distribution), "Adding provider", "OK", "Removing provider", "OK")
    expect(page.locator(".toast")).to_have_count(0)  # good news goes by itself
    assert not any(name.startswith("grown-v1-") for name in site.images("fra-01"))


def test_the_preflight_says_what_a_provider_lacks(site: Site, desk: Desk) -> None:
    site.template("checked", "ams-01")
    page = desk.sit()
    with site.without("ams-02"):
        expect_not_available(page, "ams-02")
        page.goto("/templates/")
        properties = open_dialog(page, "checked", "Properties")
        choice = properties.get_by_role("listitem").filter(has=page.get_by_role("checkbox", name="ams-02"))
        expect(choice.get_by_text("not fulfilled: Location")).to_have_count(1)


def expect_not_available(page: Page, host: str) -> None:
    page.goto("/providers/")
    expect(page.get_by_role("row", name=host)).to_contain_text("Not available")


def test_a_copy_that_fails_says_why_and_is_retried(site: Site, desk: Desk) -> None:
    site.template("refused", "ams-01")
    (name,) = (name for name in site.images("ams-01") if name.startswith("refused-"))
    foreign = site.path("fra-01") / "images" / name
    foreign.write_bytes(b"not ours")
    page = desk.sit()
    is_live(page)
    properties = open_dialog(page, "refused", "Properties")
    properties.get_by_role("checkbox", name="fra-01").check()
    properties.get_by_role("button", name="Apply").click()
    expect(cell(page, "refused", "distribution")).to_contain_text("Failed to distribute")
    expect(cell(page, "refused", "distribution")).to_contain_text("1 of 2, 1 failed")

    details = open_dialog(page, "refused", "Distribution details")
    expect(state(details, "fra-01")).to_have_text("Needs update")
    expect(progress(details, "fra-01")).to_contain_text("Failed to distribute")
    expect(progress(details, "fra-01")).to_contain_text(name)
    assert foreign.read_bytes() == b"not ours"
    foreign.unlink()
    page.evaluate(GONE_AT_ONCE)
    line(details, "fra-01").get_by_role("button", name="Retry").click()
    expect(page.locator("#toasts")).to_contain_text("fra-01 is tried again.")
    expect(progress(details, "fra-01")).to_contain_text("OK")
    expect(state(details, "fra-01")).to_have_text("Ready")
    details.get_by_role("button", name="Close").last.click()
    expect(cell(page, "refused", "distribution")).to_contain_text("OK")


def test_details_follow_a_host_that_goes_away_and_an_image_that_is_lost(site: Site, desk: Desk) -> None:
    site.template("watched", "ams-01", "fra-01")
    page = desk.sit()
    is_live(page)
    details = open_dialog(page, "watched", "Distribution details")
    expect(state(details, "fra-01")).to_have_text("Ready")
    with site.without("fra-01"):
        expect(state(details, "fra-01")).to_contain_text("Not available")
        expect(state(details, "fra-01")).to_contain_text("last seen")
        expect(progress(details, "fra-01")).to_contain_text("OK")
    expect(state(details, "fra-01")).to_have_text("Ready")

    (image,) = (site.path("fra-01") / "images").glob("watched-v1-*")
    image.unlink()
    expect(state(details, "fra-01")).to_have_text("Needs update")
    line(details, "fra-01").get_by_role("button", name="Retry").click()
    expect(state(details, "fra-01")).to_have_text("Ready")
    expect(progress(details, "fra-01")).to_contain_text("OK")
    assert came_in_order(
        seen(page, state(details, "fra-01")), "Ready", "Not available", "Ready", "Needs update", "Ready"
    )
    assert image.exists()


def test_a_copy_shows_how_far_it_is_and_is_cancelled(site: Site, desk: Desk) -> None:
    site.template("stopped", "ams-01")
    page = desk.sit()
    is_live(page)
    properties = open_dialog(page, "stopped", "Properties")
    properties.get_by_role("checkbox", name="slow-01").check()
    properties.get_by_role("button", name="Apply").click()
    details = open_dialog(page, "stopped", "Distribution details")
    expect(progress(details, "slow-01")).to_contain_text(re.compile(r"Adding provider\s*[1-9]\d? %"))
    expect(progress(details, "slow-01")).to_contain_text("of 12 MiB")
    line(details, "slow-01").get_by_role("button", name="Cancel").click()
    question = dialog(page, "Stop copying stopped to slow-01?")
    expect(question).to_contain_text("What was copied so far is deleted there")
    question.get_by_role("button", name="Stop copying").click()
    expect(line(details, "slow-01")).to_have_count(0)
    expect(line(details, "ams-01")).to_have_count(1)
    wait_for(lambda: not list((site.path("slow-01") / "images").glob("*stopped*")), what="an empty folder")


def test_work_for_a_silent_host_waits_and_is_done_when_it_is_back(site: Site, desk: Desk) -> None:
    site.template("owed", "ams-01", "fra-01")
    page = desk.sit()
    is_live(page)
    with site.without("fra-01"):
        expect(cell(page, "owed", "distribution")).to_contain_text("1 not available")
        set_provider(page, "owed", "fra-01", listed=False)
        expect(cell(page, "owed", "distribution")).to_contain_text("Removing provider")
        details = open_dialog(page, "owed", "Distribution details")
        expect(progress(details, "fra-01")).to_contain_text("Owed")
    expect(line(details, "fra-01")).to_have_count(0)
    expect(row(page, "owed").locator("[id$=-distribution]")).to_contain_text("OK")
    assert not any(name.startswith("owed-") for name in site.images("fra-01"))
