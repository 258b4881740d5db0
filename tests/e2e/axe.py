"""Accessibility of what a page shows now, by axe-core."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from playwright.sync_api import Page

# Style sheets are not read a second time for it: only experimental rules, which do not run, look at them.
_RUN = """async (rules) => {
  const how = { preload: { assets: ["media"] }, resultTypes: ["violations"] };
  const found = await axe.run(document, { ...how, ...(rules && { runOnly: rules }) });
  return found.violations.map((each) => `${each.id} (${each.impact}): ${each.nodes.map((node) => node.html.slice(0, 160)
    + " " + (node.any[0]?.message ?? "")).join(" | ")}`);
}"""

_STILL = """async () => {
  await new Promise((painted) => requestAnimationFrame(() => requestAnimationFrame(painted)));
  const passing = document.getAnimations().filter((each) => each.effect.getTiming().iterations < 9);
  await Promise.all(passing.map((each) => each.finished));
}"""


@lru_cache(maxsize=1)
def _script() -> str:
    return (Path(__file__).parent / "vendor" / "axe.min.js").read_text()


def violations(page: Page) -> list[str]:
    """One line for each rule that does not hold, once nothing moves any more: in light, and of colours in dark."""
    if not page.evaluate("'axe' in window"):
        page.evaluate(_script())
    found = _found(page, None)
    page.emulate_media(color_scheme="dark")
    found += [f"dark: {each}" for each in _found(page, ["color-contrast"])]
    page.emulate_media(color_scheme="light")
    return [f"{page.url}: {each}" for each in found]


def _found(page: Page, rules: list[str] | None) -> list[str]:
    page.evaluate(_STILL)
    return list(page.evaluate(_RUN, rules))
