"""The job and the commands of a run: what the parent writes to the engine's standard input (format 1)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

FORMAT = 1
LEAF_SIZE = 64 << 10
SMALLEST_LEAF, LARGEST_LEAF = 4 << 10, 1 << 20


class BadJob(ValueError):
    """The job is not one that this engine understands."""


@dataclass(frozen=True)
class Address:
    """A host as the drivers know it. ``secrets`` never show in a repr."""

    kind: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class SourceDisk:
    """A disk to read: ``manifest`` (a path) and ``digest`` (hex) are None where they are not known yet."""

    ref: str
    manifest: str | None = None
    digest: str | None = None


@dataclass(frozen=True)
class SourceJob:
    """``host`` is None where nothing is sent: every image is there already and only compared."""

    host: Address | None
    disks: Sequence[SourceDisk]


@dataclass(frozen=True)
class Base:
    """An image of the lane's own host, of which the host can make a copy by itself.

    ``manifest`` (a path) says what it contains; None where it is the source disk itself. ``stamp`` is what the host
    said of it last, empty where that is not known. One that is not ``proven`` was found to differ from the wanted
    version, whose manifest it has: all of the copy is compared, and what is wrong is sent.
    """

    ref: str
    manifest: str | None = None
    stamp: str = ""
    proven: bool = True


@dataclass(frozen=True)
class LaneDisk:
    """One disk at one host: its final ``name`` (may hold ``{digest12}``), the fields of its ``mark``, the path of its
    ``journal``, the ref of an image that is already there, if any, and what to begin with otherwise.

    Of an image that is already there the first ``compared`` bytes of data were found right before; that counts as long
    as the host still says ``stamp`` of it.
    """

    name: str
    mark: Mapping[str, Any]
    journal: str
    have: str | None = None
    base: Base | None = None
    compared: int = 0
    stamp: str = ""


@dataclass(frozen=True)
class LaneJob:
    """One host to bring the disks to. ``bandwidth`` in bytes per second, 0 = no limit; it holds for what is sent, and
    for what is read of images that are there already."""

    id: str
    host: Address
    disks: Sequence[LaneDisk]
    bandwidth: int = 0


@dataclass(frozen=True)
class Job:
    """One version on its way from one host to others. ``manifests`` is the folder for those made while sealing."""

    source: SourceJob
    lanes: Sequence[LaneJob]
    manifests: str
    drivers: str = "providers_app.drivers"
    bandwidth: int = 0
    stall_seconds: float = 120
    leaf_size: int = LEAF_SIZE
    format: int = FORMAT

    @property
    def seals(self) -> bool:
        """Whether digests are made by this run instead of being known."""
        return any(disk.manifest is None for disk in self.source.disks)

    def to_line(self) -> bytes:
        return json.dumps(asdict(self), separators=(",", ":")).encode() + b"\n"

    @classmethod
    def from_line(cls, line: bytes) -> Job:
        """Parse and check; :class:`BadJob` without repeating any value, as secrets are among them."""
        try:
            job = _job(json.loads(line))
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise BadJob(f"The job can not be read ({type(error).__name__}).") from None
        job.check()
        return job

    def check(self) -> None:
        if self.format != FORMAT:
            raise BadJob("The job has a format that this engine does not know.")
        if not SMALLEST_LEAF <= self.leaf_size <= LARGEST_LEAF or self.leaf_size & (self.leaf_size - 1):
            raise BadJob("The leaf size must be a power of two from 4 KiB to 1 MiB.")
        if not self.source.disks or any(len(lane.disks) != len(self.source.disks) for lane in self.lanes):
            raise BadJob("Each lane needs exactly one entry for each disk of the source.")
        if len({lane.id for lane in self.lanes}) != len(self.lanes):
            raise BadJob("Two lanes have the same id.")
        if not self.stall_seconds > 0:
            raise BadJob("The stall time must be above zero.")
        if len({disk.manifest is None for disk in self.source.disks}) != 1:
            raise BadJob("Either all disks have a manifest or none has.")
        if not all(map(self.fits, self.lanes)):
            raise BadJob("A base needs a manifest, or has to be the source disk that is sealed.")
        if self.source.host is None and (self.seals or not self._all_there()):
            raise BadJob("Without a source every image has to be there already.")

    def _all_there(self) -> bool:
        return all(disk.have for lane in self.lanes for disk in lane.disks)

    def fits(self, lane: LaneJob) -> bool:
        """Whether a lane has what the source's disks need, no more and no less."""
        disks = list(zip(lane.disks, self.source.disks, strict=False))
        return len(lane.disks) == len(self.source.disks) and all(self._fits(lane, *pair) for pair in disks)

    def _fits(self, lane: LaneJob, disk: LaneDisk, source: SourceDisk) -> bool:
        if disk.base is None or disk.base.manifest is not None:
            return disk.base is None or source.manifest is not None
        same = (lane.host, disk.base.ref) == (self.source.host, source.ref)
        return same and source.manifest is None


def _job(fields: dict[str, Any]) -> Job:
    source = fields["source"]
    optional = ("drivers", "bandwidth", "stall_seconds", "leaf_size")
    host = None if source["host"] is None else Address(**source["host"])
    return Job(
        source=SourceJob(host, [SourceDisk(**disk) for disk in source["disks"]]),
        lanes=[_lane(lane) for lane in fields["lanes"]],
        manifests=fields["manifests"],
        format=fields["format"],
        **{name: fields[name] for name in optional if name in fields},
    )


def _lane(fields: dict[str, Any]) -> LaneJob:
    disks = [_lane_disk(disk) for disk in fields["disks"]]
    return LaneJob(str(fields["id"]), Address(**fields["host"]), disks, fields.get("bandwidth", 0))


def _lane_disk(fields: dict[str, Any]) -> LaneDisk:
    base = fields.pop("base", None)
    return LaneDisk(**fields, base=Base(**base) if base else None)


@dataclass(frozen=True)
class Publish:
    """Publish a lane that was announced as verified."""

    lane: str


@dataclass(frozen=True)
class Cancel:
    """Give a lane up and remove what it left on the host."""

    lane: str


@dataclass(frozen=True)
class Stop:
    """Close one lane and keep what it has for a later run; without one close all of them, and end."""

    lane: str | None = None


@dataclass(frozen=True)
class Limit:
    """Bytes per second for one lane, or for all together; 0 = no limit."""

    rate: int
    lane: str | None = None


@dataclass(frozen=True)
class Join:
    """Take one more lane along. An id may be used again once its former lane has ended."""

    lane: LaneJob


Command = Publish | Cancel | Stop | Limit | Join


def encode_command(command: Command) -> bytes:
    match command:
        case Publish(lane):
            fields: dict[str, Any] = {"publish": lane}
        case Cancel(lane):
            fields = {"cancel": lane}
        case Stop(None):
            fields = {"stop": True}
        case Stop(lane):
            fields = {"stop": True, "lane": lane}
        case Limit(rate, None):
            fields = {"limit": rate}
        case Limit(rate, lane):
            fields = {"limit": rate, "lane": lane}
        case Join(lane_job):
            fields = {"join": asdict(lane_job)}
    return json.dumps(fields).encode() + b"\n"


def decode_command(line: bytes) -> Command | None:
    """A command, or None for a line that is none."""
    try:
        fields = json.loads(line)
        match fields:
            case {"publish": lane}:
                return Publish(str(lane))
            case {"cancel": lane}:
                return Cancel(str(lane))
            case {"stop": True}:
                lane = fields.get("lane")
                return Stop(None if lane is None else str(lane))
            case {"limit": rate}:
                lane = fields.get("lane")
                return Limit(int(rate), None if lane is None else str(lane))
            case {"join": dict(lane)}:
                return Join(_lane(lane))
    except (ValueError, TypeError, KeyError, AttributeError):
        pass
    return None
