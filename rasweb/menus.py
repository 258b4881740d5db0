"""Lines of menus. What does not apply is disabled with its reason, never hidden."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Item:
    """``verb`` says what choosing it does: ``get`` opens a dialog, ``post`` orders at once, ``link`` goes to a page."""

    label: str
    icon: str
    url: str
    reason: str = ""
    danger: bool = False
    gap: bool = False
    verb: str = "get"
