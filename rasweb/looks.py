"""How a word looks: never by colour alone, always icon, word and colour together."""

from __future__ import annotations

from dataclasses import dataclass

SPINNER = "spinner"
DOT = "dot"


@dataclass(frozen=True)
class Look:
    """``tone`` is a colour token of the kit; ``icon`` names a picture of the sprite, or is SPINNER or DOT."""

    word: str
    tone: str
    icon: str
