"""libvirt speaks XML: read with a limit and without anything that reaches outside, written by a library only."""

from __future__ import annotations

from typing import NoReturn
from xml.etree import ElementTree as ET
from xml.etree.ElementTree import Element, SubElement

from providers_app.drivers.errors import DriverError

LARGEST = 16 << 20


class _Plain(ET.TreeBuilder):
    """Refuses document types, and with them every entity."""

    def doctype(self, *_: str | None) -> NoReturn:
        raise _nonsense()


def parse(text: str) -> Element:
    """Return the root element of what a host said."""
    if len(text) > LARGEST:
        raise _nonsense()
    try:
        return ET.fromstring(text, ET.XMLParser(target=_Plain()))  # noqa: S314 - no document types: see above
    except (ET.ParseError, ValueError):
        raise _nonsense() from None


def write(root: Element) -> str:
    return ET.tostring(root, encoding="unicode")


def add(parent: Element, tag: str, text: str | int | None = None, **attributes: str) -> Element:
    """Append an element and return it."""
    made = SubElement(parent, tag, attributes)
    if text is not None:
        made.text = str(text)
    return made


def number(root: Element, path: str) -> int:
    """Return a whole number, 0 where there is none."""
    try:
        return int(root.findtext(path) or 0)
    except ValueError:
        return 0


def _nonsense() -> DriverError:
    return DriverError(
        "The host described something in a way that makes no sense.", action="Look at the log."
    )
