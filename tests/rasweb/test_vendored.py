"""Browser files of other projects are what they were when they were fetched, and all that pages need is there."""

from __future__ import annotations

import hashlib
import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
VENDOR = ROOT / "static" / "vendor"
RECORDS = tomllib.loads((VENDOR / "VENDORED.toml").read_text())["file"]


def test_each_vendored_file_has_its_recorded_hash() -> None:
    for record in RECORDS:
        assert hashlib.sha256((VENDOR / record["path"]).read_bytes()).hexdigest() == record["sha256"], record


def test_no_vendored_file_is_without_a_record() -> None:
    assert {path.name for path in VENDOR.iterdir()} == {record["path"] for record in RECORDS} | {
        "VENDORED.toml"
    }
    assert all(record["version"] and record["licence"] for record in RECORDS)


def test_no_vendored_file_points_to_a_source_map_or_another_host() -> None:
    for path in VENDOR.glob("*.*"):
        text = path.read_text()
        assert "sourceMappingURL" not in text, path
        assert not re.search(r"url\(\s*[\"']?(https?:)?//", text), path


def test_each_icon_in_use_is_in_the_sprite_and_none_is_there_for_nothing() -> None:
    known = set(re.findall(r'<symbol id="([^"]+)"', (VENDOR / "icons.svg").read_text()))
    sources = [*ROOT.glob("*/templates/**/*.html"), *ROOT.glob("rasweb/**/*.py")]
    sources += [*ROOT.glob("templates_app/*.py"), *ROOT.glob("providers_app/*.py")]
    text = "\n".join(path.read_text() for path in sources if path.name != "vendor.py")
    used = set(re.findall(r'{% icon "([^"]+)"', text))
    assert used <= known
    assert all(f'"{name}"' in text for name in known)


def test_our_own_styles_and_scripts_stay_small() -> None:
    def lines(*paths: Path) -> int:
        return sum(len(path.read_text().splitlines()) for path in paths)

    assert lines(ROOT / "static" / "rasweb.css") < 150
    assert lines(*(ROOT / "static" / "js").glob("*.js")) < 400
