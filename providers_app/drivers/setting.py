"""How a kind of host declares the settings that it needs. Standard library only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Field:
    """One setting of a kind. Forms and the command line are built from it. ``type``: text, integer, boolean, choice."""

    name: str
    label: str
    help: str = ""
    type: str = "text"
    required: bool = False
    secret: bool = False
    default: Any = ""
    choices: Sequence[tuple[str, str]] = field(default_factory=tuple)
