"""Pages are right while the socket is away, and right again when it is back."""

from __future__ import annotations

from playwright.sync_api import WebSocketRoute, expect

from tests.e2e.desk import Desk
from tests.e2e.site import Site
from tests.e2e.views import came_in_order, cell, is_live, seen


def test_a_killed_web_process_comes_back_and_the_page_with_it(site: Site, desk: Desk) -> None:
    site.template("steady", "ams-01", guests={"ams-01": 1})
    page = desk.sit()
    is_live(page)
    desk.foresee("WebSocket connection to|net::ERR|502|Failed to load")
    site.product.kill(site.product.child("web"))
    expect(page.locator("#live")).to_have_text("Reconnecting")
    site.product.order("guest", "create", "steady", "--provider", "ams-01", "--prefix", "new", "--wait")
    is_live(page)
    expect(cell(page, "steady", "guests")).to_have_text("2")
    assert came_in_order(seen(page, page.locator("#live")), "Live", "Reconnecting", "Live")


def test_a_page_without_a_socket_is_right_at_once_and_reads_itself_again(site: Site, desk: Desk) -> None:
    site.template("polled", "ams-01")
    page = desk.sit(path="/login/")
    desk.foresee("WebSocket connection to")

    def refuse(socket: WebSocketRoute) -> None:
        socket.close(code=1011)

    page.clock.install()
    page.route_web_socket("**/*", refuse)
    page.goto("/templates/")
    expect(cell(page, "polled", "distribution")).to_contain_text("OK")
    expect(page.locator("#live")).to_have_text("Reconnecting")
    site.product.order("guest", "create", "polled", "--provider", "ams-01", "--wait")
    expect(cell(page, "polled", "guests")).to_have_text("0")
    page.clock.fast_forward(15_000)
    page.clock.resume()
    expect(cell(page, "polled", "guests")).to_have_text("1")


def test_pages_need_no_script_to_be_read(site: Site, desk: Desk) -> None:
    site.template("plain", "ams-01", "fra-01")
    page = desk.sit("vera", java_script_enabled=False)
    expect(cell(page, "plain", "distribution")).to_contain_text("OK")
    expect(cell(page, "plain", "ready")).to_have_text("2/2 ready")
    page.get_by_role("link", name="plain", exact=True).click()
    expect(page.get_by_role("heading", name="plain", exact=True)).to_be_visible()
