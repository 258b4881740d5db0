"""The parent's side of a running engine: jobs made from rows, and a pulse that keeps claims alive."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from django.conf import settings
from django.db import (
    DatabaseError,
    InterfaceError,
    OperationalError,
    close_old_connections,
    transaction,
)

from providers_app.drivers.base import Disk
from providers_app.hostcalls import HostAddress
from providers_app.models import Inventory, Provider
from templates_app.models import DiskVersion, DistributionTarget, PublishedImage, Template, TemplateVersion
from templates_app.models.template import filled, image_name
from templates_app.models.work import Work
from templates_app.states import Phase, TemplatePhase
from templates_app.transfer.job import Address, Base, Job, LaneDisk, LaneJob, SourceDisk, SourceJob

log = logging.getLogger(__name__)

T = TypeVar("T")

BEAT_SECONDS = 1.0
SILENT_SECONDS = 40.0
ENGINE_SILENT_SECONDS = 60.0
UNUSED_SECONDS = 24 * 3600.0


class Pulse:
    """Calls ``beat`` every ``seconds`` at most. A database that is away for a while costs nothing but time.

    After ``SILENT_SECONDS`` without a beat the claims may be somebody else's, so the work has to end.
    """

    def __init__(self, beat: Callable[[], None], seconds: float = BEAT_SECONDS) -> None:
        self._beat = beat
        self._seconds = seconds
        self._last = self._tried = time.monotonic()

    def __call__(self) -> bool:
        """Beat if it is time; False when the work has to end."""
        now = time.monotonic()
        if now - self._tried < self._seconds:
            return True
        self._tried = now
        try:
            self._beat()
            self._last = time.monotonic()
        except DatabaseError as error:
            log.warning("progress was not stored: %s", error)
            close_old_connections()
        return now - self._last < SILENT_SECONDS

    def store(self, write: Callable[[], T], *rows: Work) -> T:
        """As :func:`store`, for as long as the claims are certain to be ours."""
        return store(write, *rows, seconds=SILENT_SECONDS - (time.monotonic() - self._last))


def store(write: Callable[[], T], *rows: Work, seconds: float = SILENT_SECONDS) -> T:
    """Write what must not be lost, in one transaction; ask a database that is away again for so many seconds.

    ``write`` begins each time with the ``rows`` as they were: what was rolled back is not taken for done, and what
    was committed although nobody said so is not done twice, as the row in the database is another one then.
    """
    ends = time.monotonic() + seconds
    before = [dict(vars(row)) for row in rows]
    while True:
        try:
            with transaction.atomic():
                return write()
        except (OperationalError, InterfaceError) as error:
            if time.monotonic() > ends:
                raise
            log.warning("not stored yet: %s", error)
        for row, fields in zip(rows, before, strict=True):
            vars(row).update(fields)
        close_old_connections()
        time.sleep(BEAT_SECONDS)


def address(host: HostAddress) -> Address:
    return Address(host.kind, host.settings, host.secrets)


def make_job(source: Provider | None, disks: list[SourceDisk], lanes: list[LaneJob]) -> Job:
    """A job for the engine; without a source for images that are only compared."""
    return Job(
        source=SourceJob(address(source.address()) if source else None, disks),
        lanes=lanes,
        manifests=str(folder("manifests")),
        stall_seconds=settings.STALL_SECONDS,
    )


class Held(Protocol):
    """An image on a host, as it was found there or written down."""

    @property
    def name(self) -> str: ...
    @property
    def ref(self) -> str: ...


def sealing_lane(template: Template, number: int, disks: Sequence[Disk], formats: list[str]) -> LaneJob:
    """The lane that brings a new version to the source host itself, under names that await their digests.

    The host makes the images of its own disks by itself, where it can.
    """
    host = template.source_provider
    images = [
        LaneDisk(
            name=image_name(template.name, number, place, len(formats), suffix),
            mark=asdict(template.mark(version=number, disk=place)),
            journal=_journal(f"template-{template.pk}", number, place),
            base=Base(disk.ref),
        )
        for place, (disk, suffix) in enumerate(zip(disks, formats, strict=True))
    ]
    return LaneJob("seal", address(host.address()), images)


@dataclass(frozen=True)
class Basis:
    """What a target's host may begin with, by disk: another version, or damaged images of the wanted one."""

    label: str
    disks: Mapping[int, Base]


def basis(target: DistributionTarget) -> Basis | None:
    """The version on the target's host that is nearest to the wanted one, the newer of two; None without any.

    Only disks of the same format and size count. Whether its images are still as they should be is for the engine to
    find out. Nearest of all are images of the wanted version itself that were found to differ.
    """
    version = wanted(target)
    damaged = [image for image in target.images.filter(version=version, spoilt=True) if _is_there(image)]
    if damaged:
        disks = version.disk_versions
        bases = {each.disk: Base(each.ref, manifest_path(disks[each.disk]), proven=False) for each in damaged}
        return Basis("the damaged image", bases)
    images = target.images.filter(spoilt=False).exclude(version=version).select_related("version")
    found: dict[TemplateVersion, dict[int, Base]] = {}
    for image in images:
        old, new = image.version.disk_versions[image.disk :][:1], version.disk_versions[image.disk :][:1]
        if old and new and (old[0].format, old[0].size) == (new[0].format, new[0].size):
            found.setdefault(image.version, {})[image.disk] = Base(
                image.ref, manifest_path(old[0]), image.stamp
            )
    nearest = min(found, key=lambda held: (abs(held.number - version.number), -held.number), default=None)
    return Basis(f"version {nearest.number}", found[nearest]) if nearest else None


def _is_there(image: PublishedImage) -> bool:
    """Whether the last check saw an image of this name; one that is gone is nothing to begin with."""
    seen = (
        Inventory.objects.filter(provider=image.target.provider_id).values_list("images", flat=True).first()
    )
    return image.name in {each["name"] for each in seen or ()}


def target_lane(target: DistributionTarget, there: Mapping[int, Held], begin: Basis | None = None) -> LaneJob:
    """The lane that brings the wanted version to a target. ``there``: images that it holds already, by disk."""
    version = wanted(target)
    bases = begin.disks if begin else {}
    disks = [
        LaneDisk(
            name=there[number].name if number in there else name,
            mark=asdict(target.template.mark(version=version.number, disk=number, digest=disk.digest)),
            journal=_journal(f"target-{target.pk}", version.number, number),
            have=there[number].ref if number in there else None,
            base=bases.get(number),
        )
        for number, (disk, name) in enumerate(zip(version.disk_versions, image_names(target), strict=True))
    ]
    return LaneJob(str(target.pk), address(target.provider.address()), disks)


def image_names(target: DistributionTarget) -> list[str]:
    """What the wanted version's images are called on the target's host, in disk order."""
    version = wanted(target)
    disks = version.disk_versions
    return [
        filled(
            image_name(target.template.name, version.number, number, len(disks), disk.format),
            disk.digest,
            target.generation,
        )
        for number, disk in enumerate(disks)
    ]


def wanted(target: DistributionTarget) -> TemplateVersion:
    version = target.wanted_version
    if version is None:
        raise ValueError(f"{target} has no wanted version yet")
    return version


def manifest_path(disk: DiskVersion) -> str:
    return str(folder("manifests") / disk.manifest)


def sweep_manifests() -> None:
    """Delete the manifests that no version names any more; young ones may belong to a sealing that runs."""
    used = {
        disk["manifest"]
        for disks in TemplateVersion.objects.values_list("disks", flat=True)
        for disk in disks
    }
    _sweep("manifests", lambda name: name in used)


def sweep_journals() -> None:
    """Delete the journals of versions that their targets or templates are not about to get any more."""
    unfinished = DistributionTarget.objects.exclude(phase=Phase.INSTALLED)
    wanted = unfinished.values_list("pk", "wanted_version__number")
    sealing = Template.objects.exclude(phase__in=[TemplatePhase.READY, TemplatePhase.DELETING])
    used = (
        *(f"target-{pk}-v{number}-" for pk, number in wanted),
        *(f"template-{pk}-" for pk in sealing.values_list("pk", flat=True)),
    )
    _sweep("journals", lambda name: name.startswith(used))


def _sweep(kind: str, used: Callable[[str], bool]) -> None:
    for path in folder(kind).iterdir():
        with suppress(FileNotFoundError):  # another process sweeps too
            if not used(path.name) and time.time() - path.stat().st_mtime > UNUSED_SECONDS:
                path.unlink()


def _journal(owner: str, version: int, disk: int) -> str:
    return str(folder("journals") / f"{owner}-v{version}-{disk}.journal")


def folder(name: str) -> Path:
    path = Path(settings.DATA_DIR) / name
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    return path
