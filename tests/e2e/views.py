"""What is on the pages: rows, cells, menus and dialogs."""

from __future__ import annotations

import re

from playwright.sync_api import Locator, Page, expect

QUESTION = "All guest VMs must be recreated because the template has been modified. Do you want to recreate them now?"


def row(page: Page, name: str) -> Locator:
    """A template's row in the list."""
    return page.locator("tr[data-row]", has=page.get_by_role("link", name=name, exact=True))


def cell(page: Page, name: str, part: str) -> Locator:
    """A live cell of a row: ``status``, ``distribution``, ``ready``, ``guests``, ``version``."""
    return row(page, name).locator(f"[id^=template-][id$=-{part}]")


def seen(page: Page, live: Locator) -> list[str]:
    """The words a live cell has shown, oldest first."""
    words: list[str] = page.evaluate("id => window.seenWords[id] ?? []", live.get_attribute("id"))
    return words


def came_in_order(words: list[str], *expected: str) -> bool:
    rest = iter(words)
    return all(word in rest for word in expected)


def menu(page: Page) -> Locator:
    return page.locator("#menu:popover-open")


def item(page: Page, label: str) -> Locator:
    return menu(page).get_by_role("menuitem", name=re.compile(f"^{label}"))


def choose(page: Page, name: str, label: str) -> None:
    """Choose from the menu of a template's row."""
    row(page, name).get_by_role("button", name=f"Tasks of {name}").click()
    item(page, label).click()


def dialog(page: Page, title: str) -> Locator:
    return page.get_by_role("dialog", name=title)


def open_dialog(page: Page, name: str, label: str) -> Locator:
    choose(page, name, label)
    opened = page.get_by_role("dialog")
    expect(opened.get_by_role("heading", level=2)).to_be_visible()
    return opened


def set_provider(page: Page, name: str, host: str, *, listed: bool) -> None:
    """Put a host into the distribution list of a template or take it out, as Properties does it."""
    properties = open_dialog(page, name, "Properties")
    properties.get_by_role("checkbox", name=host).set_checked(listed)
    properties.get_by_role("button", name="Apply").click()
    if not listed:
        warning = properties.get_by_role("alert")
        expect(warning).to_contain_text(f"the images of {name} there are deleted: {host}.")
        properties.get_by_role("button", name="Apply").click()
    expect(properties).to_be_hidden()


def line(details: Locator, host: str) -> Locator:
    """The line of a provider in Distribution details."""
    return details.locator("tbody tr", has=details.page.get_by_role("link", name=host, exact=True))


def state(details: Locator, host: str) -> Locator:
    return line(details, host).locator("[id$=-state]")


def progress(details: Locator, host: str) -> Locator:
    return line(details, host).locator("[id$=-progress]")


def is_live(page: Page) -> None:
    expect(page.locator("#live")).to_have_text("Live")


def enter(page: Page, name: str) -> None:
    """Put a template into maintenance."""
    choose(page, name, "Maintenance")
    dialog(page, f"Maintenance — {name}").get_by_role("button", name="Enter maintenance").click()
    expect(cell(page, name, "status")).to_have_text("Maintenance")


def leave(page: Page, name: str, choice: str) -> None:
    """Leave maintenance by one of the two ways."""
    choose(page, name, "Leave maintenance")
    leaving = dialog(page, f"Leave maintenance — {name}")
    leaving.get_by_role("radio", name=choice).check()
    leaving.get_by_role("button", name="Leave maintenance").click()


def question(page: Page, name: str) -> Locator:
    """The question after a new version."""
    asked = dialog(page, f"Recreate guest VMs — {name}")
    expect(asked.get_by_text(QUESTION, exact=True)).to_be_visible()
    return asked
