"""A browser with several users at it. Whatever it complains of fails the test."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from playwright.sync_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Page,
    Response,
    expect,
    sync_playwright,
)

from tests.e2e.site import Site

WAIT = 40_000  # milliseconds until something expected has to be seen
# Notes every word that a live cell shows, since some are true for less than a look takes.
RECORDER = """
const seen = (window.seenWords = {});
new MutationObserver(() => {
  for (const cell of document.querySelectorAll("[data-v][id^=template-], [data-v][id^=target-], #live")) {
    const word = (cell.querySelector(".word, .badge") ?? cell).textContent.trim();
    const words = (seen[cell.id] ??= []);
    if (words.at(-1) !== word) words.push(word);
  }
}).observe(document, { subtree: true, childList: true, characterData: true });
"""

expect.set_options(timeout=WAIT)


def chromium_path() -> str:
    """The headless shell: the same pages for half the processor time. The full browser where there is no other."""
    found = (shutil.which(name) for name in ("chromium-headless-shell", "chromium", "chromium-browser"))
    path = next(filter(None, found), None)
    assert path, (
        "These tests need Chromium. On Debian: apt-get install chromium-headless-shell"
        " (make test does it as root)."
    )
    return path


@contextmanager
def chromium() -> Iterator[Browser]:
    """The system's Chromium with a new profile."""
    path = chromium_path()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path)
        yield browser
        browser.close()


class Desk:
    """``sit`` opens a page as a user. ``faults``: errors of the console, of the policy, of pages and answers."""

    def __init__(self, site: Site, browser: Browser) -> None:
        self.site = site
        self.browser = browser
        self.faults: list[str] = []
        self.foreseen: list[str] = []
        self._contexts: list[BrowserContext] = []

    def sit(self, user: str = "ada", path: str = "/templates/", **options: Any) -> Page:
        """A new browser profile, signed in as ``user`` ("" for a stranger), at ``path``."""
        page = self._page(**options)
        if user:
            page.context.add_cookies([self.site.cookie(user)])
        page.goto(path)
        return page

    def foresee(self, pattern: str) -> None:
        """Complaints that the test itself brings about."""
        self.foreseen.append(pattern)

    def leave(self) -> None:
        for context in self._contexts:
            context.close()
        self._contexts.clear()
        unforeseen = [
            fault for fault in self.faults if not any(re.search(known, fault) for known in self.foreseen)
        ]
        assert not unforeseen, "\n".join(unforeseen)

    def _page(self, **options: Any) -> Page:
        size = {"width": options.pop("width", 1440), "height": 900}
        context = self.browser.new_context(
            base_url=self.site.url(""), viewport=size, locale="en", reduced_motion="reduce", **options
        )
        context.set_default_timeout(WAIT)
        self._contexts.append(context)
        page = context.new_page()
        page.add_init_script(RECORDER)
        page.on("console", self._heard)
        page.on("pageerror", lambda error: self.faults.append(f"page error: {error}"))
        page.on("response", self._answered)
        return page

    def _heard(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.faults.append(
                f"console {message.type} on {message.page.url if message.page else '?'}: {message.text}"
            )

    def _answered(self, response: Response) -> None:
        if response.status >= 500:
            self.faults.append(f"{response.status} from {response.url}")
