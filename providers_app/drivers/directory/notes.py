"""The side files that say whose an object in a host's folder is."""

from __future__ import annotations

import errno
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from providers_app.drivers import wire
from providers_app.drivers.base import Mark
from providers_app.drivers.files import NOT_A_FILE, Folder, parse_json

FORMAT = 1
IN_FOLDER = ".rasweb.json"
_NO_NOTE = {errno.ENOENT, errno.EFBIG, NOT_A_FILE}
_PART = re.compile(r"\.(?P<name>.+)\.(?P<token>[0-9a-f]{16})\.part")
_SIDE = re.compile(r"\.(?P<name>.+)\.(?P<token>[0-9a-f]{16})\.(?P<state>new|old|gone)")


@dataclass(frozen=True)
class Note:
    """What a side file says: the mark, and what the object was like when it was made.

    ``stamp`` is that of a published image, ``token`` that of the side name an object was made under, ``images`` are
    the refs a VM was made from.
    """

    mark: Mark
    size: int = 0
    stamp: str = ""
    token: str = ""
    images: tuple[str, ...] = field(default=())

    def encode(self) -> bytes:
        return json.dumps({"format": FORMAT, **wire.plain(self)}, indent=1).encode() + b"\n"


def of_image(name: str) -> str:
    """Return the name of the side file of the image ``name``, published or not."""
    return f".{name.removeprefix('.')}.rasweb.json"


def read(folder: Folder, name: str) -> Note | None:
    """Return what a side file says; None for one that is missing or not ours to understand."""
    try:
        known = parse_json(folder.read(name))
        if not isinstance(known, dict) or known.pop("format", None) != FORMAT:
            return None
        note: Note = wire.rebuild(Note, known)
    except ValueError:
        return None
    except OSError as error:
        if error.errno not in _NO_NOTE:
            raise
        return None
    return note


@dataclass(frozen=True)
class Part:
    """An image under its side name."""

    name: str
    token: str

    @property
    def file(self) -> str:
        return f".{self.name}.{self.token}.part"

    @property
    def note(self) -> str:
        return of_image(self.file)


@dataclass(frozen=True)
class Side:
    """A VM's folder under a side name: ``new`` in the making, ``old`` in the middle of a swap, ``gone`` deleted."""

    name: str
    token: str
    state: str

    @property
    def folder(self) -> str:
        return f".{self.name}.{self.token}.{self.state}"


def parts(images: Folder) -> Iterator[Part]:
    """Yield what is staged, also where only the side file is left of it."""
    found = {name.removesuffix(".rasweb.json") for name in images.names()}
    for name in sorted(found):
        if match := _PART.fullmatch(name):
            yield Part(match["name"], match["token"])


def sides(room: Folder, name: str | None = None) -> Iterator[Side]:
    """Yield the side folders in a room, of one VM or of all."""
    for found in room.names():
        match = _SIDE.fullmatch(found)
        if match and name in (None, match["name"]):
            yield Side(match["name"], match["token"], match["state"])
