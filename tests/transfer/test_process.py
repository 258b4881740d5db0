"""The real engine as a child process, between folders."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from templates_app.transfer.events import Event, Failed, Progress, Published, Sealed, Verified
from templates_app.transfer.job import LEAF_SIZE, Address, Base, Job, LaneDisk, LaneJob, SourceDisk, SourceJob
from templates_app.transfer.process import Engine

MARK = {"installation": "i", "kind": "image", "owner": "o", "version": 1}
LIMIT_SECONDS = 20


class Site:
    """A source folder with one disk, and folders for any number of hosts."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.disk = self.host("source") / "disk.raw"
        self.sealed: Sealed | None = None

    def host(self, name: str) -> Path:
        path = self.folder / name
        path.mkdir(exist_ok=True)
        return path

    def fill(self, size: int, seed: int = 1) -> None:
        source = random.Random(seed)
        with self.disk.open("wb") as file:
            file.truncate(size)
            for offset in range(0, size, 6 << 20):
                file.seek(offset)
                file.write(source.randbytes(min(4 << 20, size - offset)))

    def job(
        self, *names: str, settings: dict[str, Any] | None = None, base: Base | None = None, **fields: Any
    ) -> Job:
        disk = self.sealed.disks[0] if self.sealed else None
        source = SourceDisk("disk.raw", disk.manifest, disk.digest) if disk else SourceDisk("disk.raw")
        image = f"v1-{disk.digest[:12]}.raw" if disk else "v1-{digest12}.raw"
        lanes = [
            LaneJob(
                name,
                Address("file", {"folder": str(self.host(name))} | (settings or {}), {"password": "x"}),
                [LaneDisk(image, MARK, str(self.folder / "journals" / name), base=base)],
            )
            for name in names
        ]
        host = Address("file", {"folder": str(self.folder / "source")})
        manifests = str(self.folder / "manifests")
        return Job(SourceJob(host, [source]), lanes, manifests, drivers="tests.transfer.filehost", **fields)

    def seal(self) -> Sealed:
        self.sealed = None
        events = finish(self.job())
        (self.sealed,) = [event for event in events if isinstance(event, Sealed)]
        return self.sealed

    def images(self, name: str) -> list[bytes]:
        return [path.read_bytes() for path in sorted(self.host(name).glob("*.raw"))]

    def leftovers(self, name: str) -> list[str]:
        return [path.name for path in self.host(name).glob(".*")]


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def follow(engine: Engine, act: Callable[[Event], None] = lambda event: None) -> Iterator[Event]:
    """All events but progress; publishes what is verified."""
    deadline = time.monotonic() + LIMIT_SECONDS
    for event in engine.events(timeout=0.2):
        assert time.monotonic() < deadline, "the engine does not come to an end"
        if event is None:
            continue
        act(event)
        if isinstance(event, Verified):
            engine.publish(event.lane)
        if not isinstance(event, Progress):
            yield event


def finish(job: Job, act: Callable[[Event], None] = lambda event: None) -> list[Event]:
    with Engine.start(job) as engine:
        events = list(follow(engine, act))
        assert engine.returncode == 0
        assert not engine.crashed
    return events


def outcomes(events: list[Event]) -> dict[str | None, str]:
    return {
        event.lane: event.code if isinstance(event, Failed) else "published"
        for event in events
        if isinstance(event, Failed | Published)
    }


def test_a_version_is_sealed_and_published_in_one_run(site: Site) -> None:
    site.fill((9 << 20) + 12345)
    events = finish(site.job("a"))
    assert outcomes(events) == {"a": "published"}
    (sealed,) = [event for event in events if isinstance(event, Sealed)]
    assert site.images("a") == [site.disk.read_bytes()]
    assert [path.name for path in site.host("a").glob("*.raw")] == [f"v1-{sealed.disks[0].digest[:12]}.raw"]


def test_a_sealed_version_reaches_several_hosts(site: Site) -> None:
    site.fill(7 << 20)
    site.seal()
    assert outcomes(finish(site.job("a", "b", "c"))) == dict.fromkeys("abc", "published")
    assert [site.images(name) for name in "abc"] == [[site.disk.read_bytes()]] * 3


def test_a_host_that_is_down_does_not_stop_the_others(site: Site) -> None:
    site.fill(5 << 20)
    site.seal()
    job = site.job("a", "b")
    site.host("b").rmdir()
    assert outcomes(finish(job)) == {"a": "published", "b": "UNREACHABLE"}


def test_a_killed_engine_is_resumed_without_sending_all_again(site: Site) -> None:
    site.fill(150 << 20)
    site.seal()
    with Engine.start(site.job("a", settings={"slow": 0.05})) as engine:
        journal = site.folder / "journals" / "a"
        deadline = time.monotonic() + LIMIT_SECONDS
        while not journal.exists() or journal.read_bytes().count(b"\n") < 6:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        engine.kill()
        assert list(engine.events()) is not None
        assert engine.crashed
    (published,) = [event for event in finish(site.job("a")) if isinstance(event, Published)]
    assert 0 < published.sent < 60 << 20
    assert site.images("a") == [site.disk.read_bytes()]


@pytest.mark.parametrize("moment", ["while the host copies", "after its copy"])
def test_an_engine_that_is_killed_in_a_delta_is_resumed(site: Site, moment: str) -> None:
    site.fill(20 << 20)
    old = site.seal().disks[0]
    hang, events = site.folder / "hang", finish(site.job("a"))
    (image,) = [event.images[0].name for event in events if isinstance(event, Published)]
    with site.disk.open("r+b") as disk:
        for offset in (5, 7 << 20, 14 << 20):
            disk.seek(offset)
            disk.write(b"changed")
    site.seal()
    base, journal = Base(image, old.manifest), site.folder / "journals" / "a"
    where = {"hang_copy" if moment == "while the host copies" else "hang": str(hang)}
    hang.touch()
    with Engine.start(site.job("a", settings=where, base=base)) as engine:
        deadline = time.monotonic() + LIMIT_SECONDS
        lines = 1 if "hang_copy" in where else 2  # the second line claims what the host copied
        while not journal.exists() or journal.read_bytes().count(b"\n") < lines:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        engine.kill()
        assert list(engine.events()) is not None
    (end,) = [event for event in finish(site.job("a", base=base)) if isinstance(event, Published)]
    assert 0 < end.sent <= 3 * LEAF_SIZE
    assert site.disk.read_bytes() in site.images("a")
    assert len(site.images("a")) == 2


def test_a_cancelled_lane_leaves_nothing_on_its_host(site: Site) -> None:
    site.fill(40 << 20)
    site.seal()
    with Engine.start(site.job("a", "b", settings={"slow": 0.2})) as engine:

        def cancel(event: Event) -> None:
            if isinstance(event, Progress) and event.read > 0:
                engine.cancel("a")
                engine.cancel("b")

        assert outcomes(list(follow(engine, cancel))) == dict.fromkeys("ab", "CANCELLED")
    assert site.leftovers("a") == site.leftovers("b") == []


def test_a_stopped_engine_keeps_what_it_has(site: Site) -> None:
    site.fill(40 << 20)
    site.seal()
    with Engine.start(site.job("a", settings={"slow": 0.2})) as engine:

        def stop(event: Event) -> None:
            if isinstance(event, Progress) and event.read > 0:
                engine.stop()

        events = list(follow(engine, stop))
    assert outcomes(events) == {"a": "STOPPED"}
    assert len(site.leftovers("a")) == 1


def test_an_engine_whose_parent_lets_go_ends_and_keeps_what_it_has(site: Site) -> None:
    site.fill(40 << 20)
    site.seal()
    engine = Engine.start(site.job("a", settings={"slow": 0.2}))
    next(event for event in engine.events() if isinstance(event, Progress) and event.read > 0)
    engine.close()
    assert engine.returncode == 0
    assert len(site.leftovers("a")) == 1


def test_a_hanging_host_is_stalled_and_the_process_ends(site: Site) -> None:
    site.fill(9 << 20)
    site.seal()
    hang = site.folder / "hang"
    hang.touch()
    events = finish(site.job("a", settings={"hang": str(hang)}, stall_seconds=0.5))
    assert outcomes(events) == {"a": "STALLED"}


def test_the_engine_dies_with_its_parent(site: Site, tmp_path: Path) -> None:
    site.fill(40 << 20)
    site.seal()
    job = site.job("a", settings={"slow": 5})
    report = tmp_path / "pid"
    parent = os.fork()
    if not parent:
        engine = Engine.start(job)
        report.write_text(str(engine.pid))
        signal.pause()
    deadline = time.monotonic() + LIMIT_SECONDS
    while not report.exists() or not report.read_text():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(parent, signal.SIGKILL)
    os.waitpid(parent, 0)
    child = int(report.read_text())
    while Path(f"/proc/{child}/stat").exists() and " Z " not in Path(f"/proc/{child}/stat").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_secrets_are_neither_on_the_command_line_nor_in_the_environment(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.fill(9 << 20)
    site.seal()
    monkeypatch.setenv("RASWEB_TEST_SECRET", "do-not-hand-on")
    with Engine.start(site.job("a", settings={"slow": 1})) as engine:
        process = Path(f"/proc/{engine.pid}")
        shown = (process / "cmdline").read_bytes() + (process / "environ").read_bytes()
        engine.kill()
    assert b"password" not in shown
    assert b"do-not-hand-on" not in shown


def test_a_job_that_can_not_be_read_is_told_without_its_content() -> None:
    with Engine.start(Job(SourceJob(Address("file"), []), [], "", drivers="hunter2")) as engine:
        events = list(follow(engine))
    assert outcomes(events) == {None: "FAILED"}
    assert "hunter2" not in repr(events)
