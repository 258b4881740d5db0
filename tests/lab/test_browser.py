"""The administrator's day on libvirt hosts, through a browser."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.e2e.desk import Desk, chromium
from tests.e2e.site import Site
from tests.e2e.views import (
    came_in_order,
    cell,
    enter,
    is_live,
    leave,
    line,
    open_dialog,
    progress,
    question,
    seen,
    set_provider,
    state,
)
from tests.lab.bench import LibvirtBench
from tests.lab.boot import boot_sector

pytestmark = pytest.mark.product

MIB = 1 << 20
SIZE = 16 * MIB
SETTLED = 90_000  # milliseconds; never reached on a machine that is not overloaded
HOSTS = {"alpha": 0.0, "beta": 12.0, "gamma": 12.0}  # MiB/s; the first one holds the source VM


class LabSite(Site):
    """A product whose hosts are those of the lab."""

    def __init__(self, folder: Path, benches: list[LibvirtBench]) -> None:
        super().__init__(folder)
        self.benches = dict(zip(HOSTS, benches, strict=True))
        self.product.env["RASWEB_ALLOWED_SOCKETS"] = str(benches[0].host.base)

    def options(self, name: str, speed: float) -> list[str]:
        bench = self.benches[name]
        parts = {"transport": "local", "socket": bench.host.socket, "pool": bench.pool, "shutdown_seconds": 0}
        words = [word for part, value in parts.items() for word in ("--set", f"{part}={value}")]
        return ["--kind", "libvirt", *words, "--bandwidth", str(int(speed * MIB))]

    def published(self, host: str, version: int) -> list[bytes]:
        """The bytes of a version's images, read past libvirt and past rasweb."""
        bench = self.benches[host]
        found = bench.connected().survey().images
        return [
            bench.path(each.ref).read_bytes() for each in found if each.mark and each.mark.version == version
        ]


@pytest.fixture
def site(benches: list[LibvirtBench], tmp_path: Path) -> Iterator[LabSite]:
    site = LabSite(tmp_path, benches)
    content = boot_sector("ONE") + os.urandom(10 * MIB)
    benches[0].add_vm("golden", content.ljust(SIZE, b"\0"), ((0, len(content)),))
    try:
        site.start().furnish(HOSTS)
        yield site
    finally:
        site.product.close()


@pytest.fixture
def desk(site: LabSite) -> Iterator[Desk]:
    with chromium() as browser:
        desk = Desk(site, browser)
        yield desk
        desk.leave()


def test_an_administrators_day(site: LabSite, desk: Desk) -> None:
    other = desk.sit()
    is_live(other)
    page = desk.sit()
    source = site.benches["alpha"].path("golden-disk.raw").read_bytes()

    order_by_wizard(page)
    distribution = cell(other, "win11", "distribution")
    expect(distribution).to_contain_text("OK", timeout=SETTLED)
    expect(cell(other, "win11", "ready")).to_have_text("3/3 ready")
    assert came_in_order(seen(other, distribution), "Distributing", "OK")
    assert [site.published(host, 1) for host in HOSTS] == [[source]] * 3

    page.goto("/templates/")
    is_live(page)
    set_provider(page, "win11", "gamma", listed=False)
    expect(cell(page, "win11", "ready")).to_have_text("2/2 ready", timeout=SETTLED)
    assert site.published("gamma", 1) == []
    set_provider(page, "win11", "gamma", listed=True)
    expect(cell(page, "win11", "ready")).to_have_text("3/3 ready", timeout=SETTLED)
    expect(cell(page, "win11", "distribution")).to_contain_text("OK", timeout=SETTLED)
    words = seen(page, cell(page, "win11", "distribution"))
    assert came_in_order(words, "OK", "Removing provider", "OK", "Adding provider", "OK"), words
    assert site.published("gamma", 1) == [source]

    lose_and_find(page, site, "gamma")
    site.order(*(["guest", "create", "win11", "--provider", host, "--wait"] for host in ("alpha", "beta")))
    enter(page, "win11")
    (copy,) = [vm for vm in site.benches["alpha"].connected().survey().vms if vm.mark]
    with site.benches["alpha"].path(copy.disks[0].ref).open("r+b") as disk:
        disk.write(boot_sector("TWO"))
    leave(page, "win11", "Create a new version")
    asked = question(page, "win11")
    asked.get_by_role("button", name="Yes, recreate 2 guest VMs").click()
    expect(asked).to_contain_text("All guest VMs are of the current version.", timeout=SETTLED)
    asked.get_by_role("button", name="Close").last.click()
    expect(cell(page, "win11", "version")).to_have_text("2")
    expect(cell(page, "win11", "distribution")).to_contain_text("OK", timeout=SETTLED)
    changed = boot_sector("TWO") + source[512:]
    assert [site.published(host, 2) for host in HOSTS] == [[changed]] * 3
    assert "Traceback" not in site.product.output


def order_by_wizard(page: Page) -> None:
    page.get_by_role("link", name="Create template").first.click()
    page.get_by_role("radio", name="golden").check()
    page.get_by_label("Name of the template").fill("win11")
    page.get_by_role("button", name="Next").click()
    page.get_by_role("radio", name="Linked clone").check()
    page.get_by_role("button", name="Next").click()
    page.get_by_role("button", name="Add all").click()
    expect(page.get_by_label("Target list").locator("option")).to_have_text(["beta", "gamma"])
    page.get_by_role("button", name="Next").click()
    page.get_by_role("button", name="Finish").click()
    expect(page.get_by_role("heading", name="win11", exact=True)).to_be_visible()


def lose_and_find(page: Page, site: LabSite, host: str) -> None:
    """Cut a host's power and give it back, and see both."""
    details = open_dialog(page, "win11", "Distribution details")
    expect(state(details, host)).to_have_text("Ready")
    site.benches[host].host.power_cut()
    try:
        expect(state(details, host)).to_contain_text("Not available", timeout=SETTLED)
        expect(progress(details, host)).to_contain_text("OK")
    finally:
        site.benches[host].host.boot()
    expect(state(details, host)).to_have_text("Ready", timeout=SETTLED)
    assert came_in_order(seen(page, state(details, host)), "Ready", "Not available", "Ready")
    expect(line(details, host)).to_contain_text("OK")
    details.get_by_role("button", name="Close").last.click()
