"""Hosts in memory, with faults on demand. A :class:`World` stands for the drivers module of a job."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from .filehost import Extent, HostError, Image, Mark

LONGEST_HANG = 20.0


@dataclass(frozen=True)
class Trouble:
    """What goes wrong at the ``at``-th call of ``call``: error, refuse, full, io, bug, hang, rot, slow, change or
    touch, which is a change that the bytes read do not show."""

    call: str
    at: int
    kind: str


@dataclass
class Disk:
    """The content of a VM's disk and what its host says of its holes."""

    content: bytes
    extents: Sequence[Extent]
    generation: int = 0


@dataclass
class Staged:
    """A file on a host: what its cache holds, and what would survive a crash."""

    token: str
    cache: bytearray
    durable: bytearray
    dirty: list[tuple[int, bytes]] = field(default_factory=list)

    def put(self, offset: int, data: bytes) -> None:
        self.cache[offset : offset + len(data)] = data
        self.dirty.append((offset, data))

    def flush(self) -> None:
        self.durable[:] = self.cache
        self.dirty.clear()

    def crash(self, chance: random.Random) -> None:
        """Lose some of what was not flushed, whole or in part."""
        for offset, data in self.dirty:
            if chance.random() < 0.5:
                part = data[: chance.randrange(len(data) + 1)]
                self.durable[offset : offset + len(part)] = part
        self.cache[:] = self.durable
        self.dirty.clear()


class Place:
    """One host: its disks, its staged and published images, its troubles."""

    def __init__(
        self, *, troubles: Sequence[Trouble] = (), delay: float = 0.0, sequential: bool = False
    ) -> None:
        self.disks: dict[str, Disk] = {}
        self.staged: dict[str, Staged] = {}
        self.published: dict[str, bytes] = {}
        self.marks: dict[str, Mark] = {}
        self.confirmed: dict[str, str] = {}
        self.troubles = list(troubles)
        self.delay = delay
        self.sequential = sequential
        self.calls: Counter[str] = Counter()
        self.callers: defaultdict[str, set[int]] = defaultdict(set)
        self.written = 0
        self.copied = 0
        self.misused = False
        self.read = 0
        self.released = threading.Event()
        self._tokens = 0
        self._lock = threading.Lock()

    def call(self, name: str) -> str:
        """Count a call and let its trouble happen; returns the kind of a trouble that the caller has to act out."""
        with self._lock:
            self.calls[name] += 1
            self.callers[name].add(threading.get_ident())
            count = self.calls[name]
        if self.delay and name == "write":
            time.sleep(self.delay)
        for trouble in self.troubles:
            if (trouble.call, trouble.at) == (name, count):
                return self._act(trouble.kind)
        return ""

    def _act(self, kind: str) -> str:
        match kind:
            case "error":
                raise HostError("UNREACHABLE", "The host does not answer.", permanent=False)
            case "refuse":
                raise HostError("REFUSED", "The host answered no.", permanent=True)
            case "full":
                raise OSError(28, "No space left on device")
            case "io":
                raise OSError(5, "Input/output error")
            case "late":
                raise LateError
            case "bug":
                raise ZeroDivisionError
            case "hang":
                self.released.wait(LONGEST_HANG)
                raise HostError("UNREACHABLE", "The host came back too late.", permanent=False)
            case "slow":
                time.sleep(0.03)
        return kind

    def token(self) -> str:
        self._tokens += 1
        return f"token-{self._tokens}"


class LateError(Exception):
    """An error that takes its time to be put into words."""

    @property
    def text(self) -> str:
        time.sleep(0.1)
        return "The host does not answer."


class World:
    """All hosts by name."""

    Mark = Mark

    def __init__(self, **places: Place) -> None:
        self.places = places

    def open_driver(self, kind: str, settings: Mapping[str, Any], secrets: Mapping[str, str]) -> MemoryHost:
        return MemoryHost(self.places[settings["place"]])


class MemoryHost:
    def __init__(self, place: Place) -> None:
        self.place = place

    def __enter__(self) -> MemoryHost:
        self.place.call("connect")
        return self

    def __exit__(self, *exc: object) -> None:
        self.place.call("disconnect")

    def open_source(self, ref: str) -> MemorySource:
        self.place.call("open")
        if ref not in self.place.disks:
            raise HostError("MISSING", "The disk is gone.", permanent=True)
        return MemorySource(self.place, self.place.disks[ref])

    def stage(self, name: str, size: int, mark: Mark) -> MemorySink:
        self.place.call("stage")
        staged = self.place.staged.get(name)
        if staged is None:
            staged = Staged(self.place.token(), bytearray(size), bytearray(size))
            self.place.staged[name] = staged
        return MemorySink(self.place, name, staged)

    def confirm(self, name: str, mark: Mark, stamp: str) -> None:
        self.place.call("confirm")
        self.place.confirmed[name] = stamp

    def remove(self, name: str, mark: Mark) -> None:
        self.place.call("remove")
        if self.place.marks.get(name, mark) != mark:
            raise HostError("NOT_OURS", "The image is somebody else's.", permanent=True)
        self.place.published.pop(name, None)


class MemorySource:
    def __init__(self, place: Place, disk: Disk) -> None:
        self._place, self._disk = place, disk
        self.size = len(disk.content)

    def extents(self) -> Iterator[Extent]:
        self._place.call("extents")
        for extent in self._disk.extents:
            self._place.call("extent")
            yield extent

    def expect(self, offset: int, length: int) -> None:
        self._place.call("expect")

    def read_into(self, offset: int, buffer: memoryview) -> int:
        kind = self._place.call("read")
        data = self._disk.content[offset : offset + len(buffer)]
        if kind == "change":
            self._disk.generation += 1
            data = bytes(byte ^ 1 for byte in data)
        if kind == "rot":
            data = bytes(byte ^ 1 for byte in data)
        if kind == "short":
            data = data[: max(1, len(data) // 3)]
        buffer[: len(data)] = data
        self._place.read += len(data)
        return len(data)

    read_stored = read_into

    def stamp(self) -> str:
        self._place.call("stamp")
        return str(self._disk.generation)

    def close(self) -> None:
        self._place.call("close")


class MemorySink:
    """What a thread expects to read is fetched at once: what is written there afterwards it does not see."""

    def __init__(self, place: Place, name: str, staged: Staged) -> None:
        self._place, self._name, self._staged = place, name, staged
        self._ahead = threading.local()
        self.token = staged.token
        self.sequential = place.sequential

    def reserve(self, offset: int, length: int) -> None:
        self._place.call("reserve")

    def copy_from(self, ref: str, beat: Callable[[int], None]) -> bool:
        """A copy in steps of a page; it may be refused, end anywhere, or be wrong."""
        self._place.misused |= any(self._staged.cache)
        if self._place.call("copy") == "unable":
            return False
        disk = self._place.disks[ref]
        content = disk.content
        if len(content) != len(self._staged.cache):
            return False
        step = max(4096, len(content) // 4)
        for offset in range(0, len(content), step):
            part = content[offset : offset + step]
            kind = self._place.call("copy-step")
            if kind in ("change", "touch"):
                disk.generation += 1
            if kind == "change":
                part = part[:-1] + bytes([part[-1] ^ 1])
            if kind == "rot":
                at = next((at for at, byte in enumerate(part) if byte), -1)
                part = part[:at] + b"\0" + part[at + 1 :] if at >= 0 else part
            self._staged.put(offset, part)
            beat(offset + len(part))
        self._place.copied += len(content)
        self.token = self._staged.token = self._place.token()
        return True

    def write(self, offset: int, data: memoryview) -> None:
        kind = self._place.call("write")
        content = bytes(data)
        if kind == "rot":
            content = bytes([content[0] ^ 1]) + content[1:]
        assert 0 <= offset <= offset + len(content) <= len(self._staged.cache)
        self._staged.put(offset, content)
        self._place.written += len(content)

    def hole(self, offset: int, length: int) -> None:
        self._place.call("hole")
        assert 0 <= offset <= offset + length <= len(self._staged.cache)
        self._staged.put(offset, bytes(length))

    def flush(self) -> None:
        self._place.call("flush")
        self._staged.flush()

    def expect(self, offset: int, length: int) -> None:
        self._place.call("expect")
        assert 0 <= offset < offset + length <= len(self._staged.cache)
        self._ahead.range = offset, bytes(self._staged.durable[offset : offset + length])

    def _stored(self, offset: int, length: int) -> bytes:
        start, ahead = getattr(self._ahead, "range", (0, b""))
        if start <= offset and offset + length <= start + len(ahead):
            return ahead[offset - start : offset - start + length]
        return bytes(self._staged.cache[offset : offset + length])

    def read_into(self, offset: int, buffer: memoryview) -> int:
        kind = self._place.call("readback")
        data = self._stored(offset, len(buffer))
        if kind == "rot":
            data = bytes([data[0] ^ 1]) + data[1:]
        if kind == "short":
            data = data[: max(1, len(data) // 3)]
        buffer[: len(data)] = data
        return len(data)

    def commit(self, name: str, mark: Mark) -> Image:
        self._place.call("commit")
        self._staged.flush()
        content = bytes(self._staged.durable)
        self._place.published[name] = content
        self._place.marks[name] = mark
        del self._place.staged[self._name]
        return Image(name, name, len(content), "stamp", mark)

    def abort(self) -> None:
        self._place.call("abort")
        self._place.staged.pop(self._name, None)

    def close(self) -> None:
        self._place.call("close")


def disk_of(content: bytes, cuts: Sequence[int], unit: int, *, lazy: bool = False) -> Disk:
    """A disk whose runs between ``cuts`` (in units) are data and zeros by turns. ``lazy`` calls all of it data."""
    size = len(content)
    edges = sorted({0, size, *(min(size, cut * unit) for cut in cuts)})
    made = bytearray(content)
    extents = []
    for number, (start, end) in enumerate(pairwise(edges)):
        data = number % 2 == 0
        if not data:
            made[start:end] = bytes(end - start)
        extents.append(Extent(start, end - start, data))
    return Disk(bytes(made), [Extent(0, size)] if lazy else extents)
