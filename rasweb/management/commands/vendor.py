"""Fetch the browser files of other projects into ``static/vendor``. For developers: needs npm and a network."""

from __future__ import annotations

import hashlib
import re
import subprocess
import tarfile
import tempfile
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand

VENDOR = Path(settings.BASE_DIR) / "static" / "vendor"
SVG = "{http://www.w3.org/2000/svg}"
SOURCE_MAP = re.compile(r"^\s*(/\*|//)# sourceMappingURL=.*$", re.MULTILINE)

# package: (version, licence, {file in the package: file here})
PACKAGES: dict[str, tuple[str, str, dict[str, str]]] = {
    "@tabler/core": ("1.6.1", "MIT", {"dist/css/tabler.min.css": "tabler.min.css"}),
    "idiomorph": (
        "0.8.0",
        "0BSD",
        {"dist/idiomorph-ext.min.js": "idiomorph-ext.min.js", "LICENSE": "LICENSE.idiomorph.txt"},
    ),
    "@tabler/icons": ("3.51.0", "MIT", {"LICENSE": "LICENSE.tabler-icons.txt"}),
}
ICONS = [
    "activity",
    "adjustments-horizontal",
    "alert-triangle",
    "arrow-left",
    "arrow-right",
    "ban",
    "check",
    "chevron-down",
    "chevron-left",
    "chevron-right",
    "chevron-up",
    "circle-check",
    "circle-minus",
    "circle-plus",
    "clock",
    "device-desktop",
    "dots-vertical",
    "help-circle",
    "history",
    "keyboard",
    "layout-dashboard",
    "list-details",
    "logout",
    "moon",
    "pencil",
    "player-play",
    "player-stop",
    "plug-connected",
    "plug-x",
    "plus",
    "progress-check",
    "refresh",
    "reload",
    "search",
    "selector",
    "server",
    "server-2",
    "shield-lock",
    "sun",
    "sun-moon",
    "template",
    "tool",
    "trash",
    "user",
    "x",
]


class Command(BaseCommand):
    help = "Fetch the vendored browser files (developers only)."
    requires_system_checks = ()

    def handle(self, *args: Any, **options: Any) -> None:
        VENDOR.mkdir(exist_ok=True)
        records = []
        with tempfile.TemporaryDirectory() as scratch:
            for name, (version, licence, files) in PACKAGES.items():
                package = unpack(name, version, Path(scratch))
                made = {here: readable(package / there) for there, here in files.items()}
                if name == "@tabler/icons":
                    made["icons.svg"] = sprite(package / "icons" / "outline")
                for here, text in made.items():
                    (VENDOR / here).write_text(text)
                    records.append(record(here, name, version, licence))
        (VENDOR / "VENDORED.toml").write_text("# Written by manage.py vendor\n" + "".join(records))


def unpack(name: str, version: str, scratch: Path) -> Path:
    """Download one package; return its folder."""
    done = subprocess.run(
        ["npm", "pack", "--silent", f"{name}@{version}"],
        cwd=scratch,
        check=True,
        capture_output=True,
        text=True,
    )
    folder = scratch / name.replace("/", "-")
    with tarfile.open(scratch / done.stdout.split()[-1]) as archive:
        archive.extractall(folder, filter="data")
    return folder / "package"


def readable(path: Path) -> str:
    """The file without the pointer to a source map that is not here."""
    return SOURCE_MAP.sub("", path.read_text()).rstrip() + "\n"


def sprite(folder: Path) -> str:
    """One SVG with a symbol for each of ICONS."""
    return "\n".join(
        ['<svg xmlns="http://www.w3.org/2000/svg">', *(symbol(folder, icon) for icon in ICONS), "</svg>\n"]
    )


def symbol(folder: Path, icon: str) -> str:
    shapes = [
        f"<{shape.tag.removeprefix(SVG)} "
        + " ".join(f'{key}="{value}"' for key, value in shape.attrib.items())
        + "/>"
        for shape in ET.parse(folder / f"{icon}.svg").getroot()  # noqa: S314  # a pinned package
        if shape.get("stroke") != "none"
    ]
    return f'<symbol id="{icon}" viewBox="0 0 24 24">{"".join(shapes)}</symbol>'


def record(here: str, name: str, version: str, licence: str) -> str:
    digest = hashlib.sha256((VENDOR / here).read_bytes()).hexdigest()
    lines = {"path": here, "name": name, "version": version, "licence": licence, "sha256": digest}
    return "\n[[file]]\n" + "".join(f'{key} = "{value}"\n' for key, value in lines.items())
