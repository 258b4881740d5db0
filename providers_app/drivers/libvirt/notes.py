"""The notes that say whose something in a pool is: small volumes beside it, whose names begin with a dot.

A note is written whole or is unfinished: its volume is made first and filled then, so an unfinished one is empty or
all zeros. Anything else that is no note of ours belongs to somebody else.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass

from providers_app.drivers import files, wire
from providers_app.drivers.base import Mark
from providers_app.drivers.errors import Missing

from . import downloads, uploads
from .storage import Pool, Volume

FORMAT = 1
MARKER = ".rasweb-host.json"
_PART = re.compile(r"\.(?P<volume>.+)\.part\.json")
_MASK = re.compile(r"\.(?P<volume>.+)\.mask")
_IMAGE = re.compile(r"\.(?P<name>.+)\.rasweb\.json")
_ORDER = re.compile(r"\.(?P<name>.+)\.(?P<token>[0-9a-f]{16})\.vm\.json")


@dataclass(frozen=True)
class Note:
    """What a note says.

    Of an image: ``name`` it is published as, ``volume`` that holds it, ``size`` and ``stamp`` at publishing.
    Of a VM: the ``images`` it was made from and the ``volumes`` made for it; in an order also the ``old`` ones that
    will be deleted, and whether the VM ``ran`` before.
    """

    mark: Mark
    name: str = ""
    volume: str = ""
    size: int = 0
    stamp: str = ""
    token: str = ""
    images: tuple[str, ...] = ()
    volumes: tuple[str, ...] = ()
    old: tuple[str, ...] = ()
    ran: bool = False

    def encode(self) -> str:
        return json.dumps({"format": FORMAT, **wire.plain(self)})


def decode(text: str) -> Note | None:
    """Return what a note says; None for one that is unfinished or not ours to understand."""
    try:
        known = files.parse_json(text.encode())
        if not isinstance(known, dict) or known.pop("format", None) != FORMAT:
            return None
        note: Note = wire.rebuild(Note, known)
    except ValueError:
        return None
    return note


def read(pool: Pool, volume: Volume) -> Note | None:
    with suppress(Missing):
        return decode(text_of(pool, volume))
    return None


def unfinished(pool: Pool, volume: Volume) -> bool:
    """Tell whether a note was never filled."""
    with suppress(Missing):
        return volume.facts().size <= files.SMALL and not text_of(pool, volume).strip("\0")
    return True


def text_of(pool: Pool, volume: Volume) -> str:
    """Return the content of a small volume; Missing when its file is gone."""
    buffer = memoryview(bytearray(files.SMALL))
    count = downloads.get(pool.connection, volume, 0, buffer)
    return bytes(buffer[:count]).decode(errors="replace")


def write(pool: Pool, name: str, text: str) -> Volume:
    """Make a note; FileExistsError when there is one."""
    data = text.encode()
    volume = pool.create(name, len(data))
    files.do(uploads.put, pool.connection, volume, 0, data)
    return volume


def rewrite(pool: Pool, name: str, text: str) -> None:
    """Put another text in the place of a note, as one short write: an upload never makes a volume shorter."""
    volume = pool.volume(name)
    if volume is None:
        raise FileNotFoundError(name)
    data = text.encode().ljust(volume.facts().size)
    files.do(uploads.put, pool.connection, volume, 0, data)


def of_image(name: str) -> str:
    """Return the name of the note that publishes an image."""
    return f".{name}.rasweb.json"


def of_part(volume: str) -> str:
    """Return the name of the note of a volume that is being filled."""
    return f".{volume}.part.json"


def of_head(volume: str) -> str:
    """Return the name of the volume that keeps the beginning of another one until it is published."""
    return f".{volume}.head"


def of_mask(volume: str) -> str:
    """Return the name of the volume through which the host itself fills another one; there only meanwhile."""
    return f".{volume}.mask"


def is_mask(name: str) -> bool:
    return _MASK.fullmatch(name) is not None


def of_order(name: str, token: str) -> str:
    """Return the name of the note of a VM that is being made or changed."""
    return f".{name}.{token}.vm.json"


def published(volumes: Mapping[str, Volume]) -> Iterator[tuple[str, Volume]]:
    """Yield (name of the image, its note) of all that was published."""
    yield from _matching(_IMAGE, volumes)


def parts(volumes: Mapping[str, Volume]) -> Iterator[tuple[str, Volume]]:
    """Yield (name of the volume, its note) of all that is being filled."""
    yield from _matching(_PART, volumes)


def orders(volumes: Mapping[str, Volume]) -> Iterator[tuple[str, Volume]]:
    """Yield (name of the VM, the note) of all that is being made or changed."""
    yield from _matching(_ORDER, volumes)


def _matching(pattern: re.Pattern[str], volumes: Mapping[str, Volume]) -> Iterable[tuple[str, Volume]]:
    for name, volume in volumes.items():
        if match := pattern.fullmatch(name):
            yield match[1], volume
