"""The events of a run: what the engine writes to its standard output, one JSON object a line (format 1)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

COPYING = "copying"
VERIFYING = "verifying"


@dataclass(frozen=True)
class LaneProgress:
    """``done`` of ``total`` bytes of data are proven or durable on the host; ``rate`` in bytes per second.

    ``spent`` are the seconds of its threads so far, by the names in :mod:`.spent`.
    """

    phase: str
    done: int
    total: int
    rate: float
    spent: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Progress:
    """All open lanes by id, and the bytes ``read`` from the source. Also the heartbeat."""

    lanes: Mapping[str, LaneProgress]
    read: int


@dataclass(frozen=True)
class Phase:
    lane: str
    phase: str


@dataclass(frozen=True)
class Unbased:
    """A base was given and is not used, so the disk is sent whole. No failure; ``code`` and ``text`` say why."""

    lane: str
    disk: int
    code: str
    text: str


@dataclass(frozen=True)
class SealedDisk:
    """``allocated`` are the bytes of leaves that are not zero, ``manifest`` is the path of the new file."""

    size: int
    allocated: int
    digest: str
    manifest: str
    leaf_size: int


@dataclass(frozen=True)
class Sealed:
    disks: Sequence[SealedDisk]


@dataclass(frozen=True)
class Differs:
    """An image that is there already is not what it should be: how many ``leaves`` of ``disk`` differ, and at which
    byte the first one begins. No leaf at all differs where only the size does; ``offset`` is then the shorter size."""

    lane: str
    disk: int
    leaves: int
    offset: int


@dataclass(frozen=True)
class Verified:
    """All bytes of the lane were read back and are right; it waits for the command to publish."""

    lane: str


@dataclass(frozen=True)
class PublishedImage:
    ref: str
    name: str
    size: int
    stamp: str
    digest: str


@dataclass(frozen=True)
class Published:
    """``sent`` are the bytes really written; ``adopted`` when every image was there already, ``based`` when the host
    made a copy of what it had and only the rest was written."""

    lane: str
    images: Sequence[PublishedImage]
    sent: int
    adopted: bool
    based: bool = False


@dataclass(frozen=True)
class Failed:
    """``lane`` is None for the source or the whole run. ``kept``: what is on the host can be resumed."""

    lane: str | None
    code: str
    text: str
    action: str
    permanent: bool
    kept: bool


@dataclass(frozen=True)
class End:
    """Nothing follows; the process ends with 0."""


Event = Progress | Phase | Unbased | Sealed | Differs | Verified | Published | Failed | End

_KINDS: dict[str, type[Any]] = {
    kind.__name__.lower(): kind
    for kind in (Progress, Phase, Unbased, Sealed, Differs, Verified, Published, Failed, End)
}


def encode(event: Event) -> bytes:
    fields = {"event": type(event).__name__.lower()} | asdict(event)
    return json.dumps(fields, separators=(",", ":")).encode() + b"\n"


def decode(line: bytes) -> Event:
    """Parse one line; ValueError for anything that is not an event."""
    try:
        fields = json.loads(line)
        kind = _KINDS[fields.pop("event")]
        if kind is Progress:
            fields["lanes"] = {lane: LaneProgress(**values) for lane, values in fields["lanes"].items()}
        elif kind is Sealed:
            fields["disks"] = [SealedDisk(**disk) for disk in fields["disks"]]
        elif kind is Published:
            fields["images"] = [PublishedImage(**image) for image in fields["images"]]
        event: Event = kind(**fields)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"not an event of the engine ({type(error).__name__})") from None
    return event
