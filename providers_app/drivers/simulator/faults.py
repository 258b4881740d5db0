"""Faults on demand: a line of words, from the settings and from a file that is read again at every step."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from typing import Self

from providers_app.drivers.errors import NoSpace, Refused, Unreachable
from providers_app.drivers.files import Folder

FILE = "faults"
GRAMMAR = (
    "refuse[=verb,…] hang[=verb,…] crash[=verb,…] slow=BYTES_PER_SECOND cut=BYTES "
    "no_space[=BYTES] corrupt[=OFFSET] hostile_names"
)
_EVERYWHERE = frozenset({"*"})
_LOOK_AGAIN = 0.05
HOSTILE_NAMES = (
    "<script>alert('vm')</script>",
    '"><img src=x onerror=alert(1)>',
    "../../etc/passwd",
    "tab\tnewline\nbell\a\x00end",
    "right\u202eto left\u2066",
    "{{ 7 * 7 }} %s {0} ${HOME} `id`",
    "long " + "x" * 10_000,
)


@dataclass(frozen=True)
class Faults:
    """What goes wrong now. ``refuse``, ``hang`` and ``crash`` name steps, ``*`` for all; None: that fault is off."""

    refuse: frozenset[str] = frozenset()
    hang: frozenset[str] = frozenset()
    crash: frozenset[str] = frozenset()
    slow: int = 0
    cut: int | None = None
    no_space: int | None = None
    corrupt: int | None = None
    hostile_names: bool = False

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a line of faults; ValueError with a sentence for a word that is none."""
        found: dict[str, object] = {}
        for word in text.split():
            name, given, value = word.partition("=")
            if name in ("refuse", "hang", "crash"):
                found[name] = frozenset(value.split(",")) if value else _EVERYWHERE
            elif name in ("slow", "cut") or (given and name in ("no_space", "corrupt")):
                found[name] = _number(word, value)
            elif name in ("no_space", "corrupt"):
                found[name] = 0
            elif word == "hostile_names":
                found[name] = True
            else:
                raise ValueError(f"“{word[:40]}” is no fault of the simulator; it knows: {GRAMMAR}.")
        return cls(**found)  # type: ignore[arg-type]  # the names and kinds are those set above

    def full(self, bytes_written: int) -> bool:
        return self.no_space is not None and bytes_written > self.no_space


class Plan:
    """The faults of one host as they are at the moment one asks."""

    def __init__(self, folder: Folder, configured: str) -> None:
        self._folder = folder
        self._configured = configured

    def now(self) -> Faults:
        try:
            written = self._folder.read(FILE).decode(errors="replace")
        except FileNotFoundError:
            written = ""
        try:
            return Faults.parse(f"{self._configured} {written}")
        except ValueError as error:
            raise Refused(
                str(error), code="PREREQUISITE", action="Correct the faults of the simulator."
            ) from None

    def meet(self, step: str) -> Faults:
        """Refuse the step, die in it, or hang until that fault is switched off; return the other faults."""
        while (faults := self.now()) and _applies(faults.hang, step):
            time.sleep(_LOOK_AGAIN)
        if _applies(faults.crash, step):
            os.kill(os.getpid(), signal.SIGKILL)
        if _applies(faults.refuse, step):
            raise Refused(
                f"The simulator refuses to {step.replace('_', ' ')}, as it was told.",
                action="Switch the fault off.",
            )
        return faults

    def transfer(self, step: str, done: int, length: int) -> Faults:
        """Meet a step that moves ``length`` bytes after ``done`` others: slowly, cut off, or into a full disk."""
        faults = self.meet(step)
        if faults.slow:
            time.sleep(length / faults.slow)
        if faults.cut is not None and done + length > faults.cut:
            raise Unreachable(
                "The connection to the simulator was cut.", action="Switch the fault off, then retry."
            )
        if step in ("write", "copy") and faults.full(done + length):
            raise NoSpace("The simulator's disk is full.", action="Switch the fault off, then retry.")
        return faults


def _applies(steps: frozenset[str], step: str) -> bool:
    return "*" in steps or step in steps


def _number(word: str, value: str) -> int:
    if not value.isascii() or not value.isdigit() or len(value) > 18:
        raise ValueError(f"“{word[:40]}” needs a whole number.")
    return int(value)
