"""A folder with a source host, images and target hosts, and the engine as the product runs it."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from providers_app.drivers import Mark, open_driver
from templates_app.transfer.events import Event, Failed, Progress, Published, Sealed, SealedDisk, Verified
from templates_app.transfer.job import Address, Job, LaneDisk, LaneJob, SourceDisk, SourceJob
from templates_app.transfer.process import Engine

from .measure import Found, flush, forget, peak_of

CHUNK = 64 << 10

Act = Callable[[Engine, Event], None]


class Site:
    """``folder`` is made and removed by the caller. ``environment`` has engines find their modules compiled, as they do
    after the first start of the product, wherever the bytecode of this process goes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        bytecode = str(folder / "bytecode")
        self.environment = {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": bytecode}
        self._sealed: dict[Path, SealedDisk] = {}

    def image(self, name: str, runs: Iterator[tuple[int, int]], size: int) -> Path:
        """A disk of ``size`` bytes with data in ``runs`` (offset, length), as a guest leaves it behind."""
        path = self.host("source") / "vms" / name / "disk.raw"
        path.parent.mkdir(parents=True)
        with path.open("wb") as file:
            file.truncate(size)
            for offset, length in runs:
                file.seek(offset)
                file.write(os.urandom(length))
        flush(path)
        return path

    def host(self, name: str) -> Path:
        path = self.folder / name
        if not path.exists():
            path.mkdir()
            open_driver("directory", self._settings(path)).register()
        return path

    def _settings(self, path: Path) -> dict[str, object]:
        return {"path": str(path), "roots": [str(self.folder)]}

    def address(self, name: str) -> Address:
        return Address("directory", self._settings(self.host(name)))

    def job(self, source: Path, lanes: Sequence[str] | Sequence[LaneJob]) -> Job:
        """To hosts of this site by name, or to whatever hosts the lanes name."""
        known = self._sealed[source]
        read = SourceDisk("/".join(source.parts[-3:]), known.manifest, known.digest)
        made = [
            self.lane(source, lane, self.address(lane)) if isinstance(lane, str) else lane for lane in lanes
        ]
        return Job(SourceJob(self.address("source"), [read]), made, str(self.folder / "manifests"))

    def lane(self, source: Path, name: str, host: Address, *, bandwidth: int = 0, **disk: Any) -> LaneJob:
        digest = self._sealed[source].digest
        mark = vars(Mark("bench", "image", source.parent.name, digest=digest))
        journal = str(self.folder / "journals" / f"{name}-{source.parent.name}")
        image = f"{source.parent.name}-{digest[:12]}.raw"
        return LaneJob(name, host, [LaneDisk(image, mark, journal, **disk)], bandwidth)

    def manifest(self, source: Path) -> str:
        return self._sealed[source].manifest

    def data(self, source: Path) -> int:
        """Bytes of leaves that are not zero."""
        return self._sealed[source].allocated

    def seal(self, *sources: Path) -> None:
        """Make the manifests that distributions begin with, in one run."""
        disks = [SourceDisk("/".join(source.parts[-3:])) for source in sources]
        job = Job(SourceJob(self.address("source"), disks), [], str(self.folder / "manifests"))
        with Engine.start(job, environment=self.environment) as engine:
            for event in engine.events():
                if isinstance(event, Sealed):
                    self._sealed.update(zip(sources, event.disks, strict=True))

    def distribute(self, job: Job, act: Act = lambda engine, event: None) -> Found:
        """Run the product's own process; each lane is read back and published unless ``act`` cancels it."""
        memory = sent = read = 0
        ended: set[str] = set()
        with Engine.start(job, environment=self.environment) as engine:
            for event in engine.events():
                if event is None or isinstance(event, Progress | Verified):
                    memory = max(memory, peak_of(engine.pid))
                if isinstance(event, Progress):
                    read = event.read
                elif isinstance(event, Verified):
                    engine.publish(event.lane)
                elif isinstance(event, Published):
                    ended.add(event.lane)
                    sent += event.sent
                elif isinstance(event, Failed):
                    if event.code != "CANCELLED":
                        raise RuntimeError(f"{event.code}: {event.text}")
                    ended.add(event.lane or "")
                if event is not None:
                    act(engine, event)
        if ended != {lane.id for lane in job.lanes}:
            raise RuntimeError("the engine did not publish all")
        return Found(memory, read, sent)

    def to(self, source: Path, targets: int) -> Found:
        """Distribute to that many fresh hosts."""
        return self.distribute(self.job(source, self.names(targets)))

    def names(self, targets: int) -> list[str]:
        return [f"t{number}" for number in range(targets)]

    def fresh(self, source: Path, targets: int) -> list[Path]:
        """Empty target hosts, the source out of the page cache; where other programs put their copies."""
        paths = [self.host(name) / "copy.raw" for name in self.names(targets)]
        forget(source)
        return paths

    def clear(self) -> None:
        for path in [*self.folder.glob("t*"), self.folder / "journals"]:
            shutil.rmtree(path, ignore_errors=True)
        flush(self.folder)


@contextmanager
def site(folder: Path, name: str) -> Iterator[Site]:
    """A site that leaves nothing behind."""
    place = folder / name
    place.mkdir()
    try:
        yield Site(place)
    finally:
        shutil.rmtree(place, ignore_errors=True)


def half_full(size: int) -> Iterator[tuple[int, int]]:
    """Runs of data and holes by turns, half of each."""
    chance = random.Random(size)
    position = 0
    while position < size:
        length = min(size - position, chance.randrange(1, 128) * CHUNK)
        yield position, length
        position += 2 * length


def thinned(size: int, data: int) -> Iterator[tuple[int, int]]:
    """Pieces of 256 KiB all over the disk, ``data`` bytes in all."""
    piece = 256 << 10
    count = max(1, data // piece)
    for number in range(count):
        yield number * (size // count) // piece * piece, piece
