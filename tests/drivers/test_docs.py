"""The pages about the hosts say what the code does."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from providers_app.drivers import KINDS, fields, wire
from providers_app.drivers.directory import layout
from providers_app.drivers.simulator import faults, index

PAGES = Path(__file__).parents[2] / "docs" / "drivers"


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_every_setting_of_a_kind_is_on_its_page(kind: str) -> None:
    text = (PAGES / f"{kind}.md").read_text()
    described = set(
        re.findall(r"^\| `(\w+)` \|", text.partition("## Settings")[2].partition("\n## ")[0], re.MULTILINE)
    )
    assert described == {field.name for field in fields(kind)}


def test_every_fault_and_step_of_the_simulator_is_on_its_page() -> None:
    text = (PAGES / "simulator.md").read_text()
    words = {re.split(r"[\[=]", word)[0] for word in faults.GRAMMAR.split()}
    assert words == set(re.findall(r"^\| `(\w+)[=`]", text.partition("## Faults")[2], re.MULTILINE))
    assert all(f"`{verb}`" in text for verb in wire.VERBS)
    assert all(name in text for name in (index.FILE, index.LOCK, index.BLOBS))


def test_the_layout_of_a_directory_host_is_on_its_page() -> None:
    text = (PAGES / "directory.md").read_text()
    assert all(name in text for name in (layout.MARKER, layout.LOCK, *(f"{room}/" for room in layout.ROOMS)))
