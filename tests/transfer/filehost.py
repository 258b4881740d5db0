"""Hosts that are folders, for the real engine process: named in the job as its drivers module.

``settings``: ``folder``; ``slow`` seconds for each write; ``hang`` a file whose presence makes writes hang; ``full``
bytes that fit; ``rot`` an offset whose byte is stored wrong.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Mark:
    installation: str
    kind: str
    owner: str
    version: int = 0
    disk: int = 0
    digest: str = ""


@dataclass(frozen=True)
class Extent:
    offset: int
    length: int
    data: bool = True


@dataclass(frozen=True)
class Image:
    ref: str
    name: str
    size: int
    stamp: str
    mark: Mark | None = None


class HostError(Exception):
    def __init__(self, code: str, text: str, *, permanent: bool) -> None:
        super().__init__(text)
        self.code, self.text, self.action, self.permanent = code, text, "Look at the host.", permanent


def stamp_of(path: Path) -> str:
    try:
        status = path.stat()
    except FileNotFoundError:
        raise HostError("MISSING", "The disk is gone.", permanent=True) from None
    return f"{status.st_ino}-{status.st_size}-{status.st_mtime_ns}"


class FileSource:
    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._file = os.open(path, os.O_RDONLY)
        except FileNotFoundError:
            raise HostError("SOURCE_MISSING", "The disk is gone.", permanent=True) from None
        self.size = os.fstat(self._file).st_size

    def extents(self) -> Iterator[Extent]:
        position = 0
        while position < self.size:
            try:
                data = os.lseek(self._file, position, os.SEEK_DATA)
            except OSError:
                data = self.size
            if data > position:
                yield Extent(position, data - position, data=False)
            if data < self.size:
                position = os.lseek(self._file, data, os.SEEK_HOLE)
                yield Extent(data, position - data)
            else:
                position = data

    def expect(self, offset: int, length: int) -> None:
        pass

    def read_into(self, offset: int, buffer: memoryview) -> int:
        return os.preadv(self._file, [buffer], offset)

    read_stored = read_into

    def stamp(self) -> str:
        return stamp_of(self._path)

    def close(self) -> None:
        os.close(self._file)


class FileSink:
    sequential = False

    def __init__(self, path: Path, size: int, settings: Mapping[str, Any]) -> None:
        self._path, self._settings = path, settings
        self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        os.ftruncate(self._file, size)
        self.token = f"{path.name}:{os.fstat(self._file).st_ino}"
        self._written = 0

    def reserve(self, offset: int, length: int) -> None: ...

    def copy_from(self, ref: str, beat: Callable[[int], None]) -> bool:
        content = (self._path.parent / ref).read_bytes()
        os.pwrite(self._file, content[: len(content) // 2], 0)
        beat(len(content) // 2)
        while (hang := self._settings.get("hang_copy")) and os.path.exists(hang):
            time.sleep(0.01)
            beat(len(content) // 2)
        os.pwrite(self._file, content, 0)
        return True

    def write(self, offset: int, data: memoryview) -> None:
        time.sleep(self._settings.get("slow", 0))
        while (hang := self._settings.get("hang")) and os.path.exists(hang):
            time.sleep(0.01)
        self._written += len(data)
        if 0 < self._settings.get("full", 0) < self._written:
            raise OSError(28, "No space left on device")
        while data:
            count = os.pwrite(self._file, data, offset)
            offset, data = offset + count, data[count:]
        rot = self._settings.get("rot", -1)
        if offset - len(data) <= rot < offset + len(data) or 0 <= rot < offset:
            os.pwrite(self._file, b"\xee", rot)

    def hole(self, offset: int, length: int) -> None:
        zeros = bytes(1 << 16)
        end = offset + length
        while offset < end:
            try:
                start = os.lseek(self._file, offset, os.SEEK_DATA)
            except OSError:
                return
            stop = min(end, start + len(zeros))
            if start < stop:
                os.pwrite(self._file, zeros[: stop - start], start)
            offset = max(start, stop)

    def flush(self) -> None:
        os.fdatasync(self._file)

    def expect(self, offset: int, length: int) -> None: ...

    def read_into(self, offset: int, buffer: memoryview) -> int:
        return os.preadv(self._file, [buffer], offset)

    def commit(self, name: str, mark: Mark) -> Image:
        os.fsync(self._file)
        final = self._path.with_name(name)
        os.rename(self._path, final)
        final.with_suffix(".mark").write_text(repr(asdict(mark)))
        return Image(str(final), name, final.stat().st_size, stamp_of(final), mark)

    def abort(self) -> None:
        self._path.unlink(missing_ok=True)

    def close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


class FileHost:
    def __init__(self, settings: Mapping[str, Any]) -> None:
        self._settings = settings
        self._folder = Path(settings["folder"])

    def __enter__(self) -> FileHost:
        print("A library that is talkative.")
        if not self._folder.is_dir():
            raise HostError("UNREACHABLE", "The host does not answer.", permanent=False)
        return self

    def __exit__(self, *exc: object) -> None: ...

    def open_source(self, ref: str) -> FileSource:
        return FileSource(self._folder / ref)

    def stage(self, name: str, size: int, mark: Mark) -> FileSink:
        return FileSink(self._folder / f".{name}.part", size, self._settings)

    def confirm(self, name: str, mark: Mark, stamp: str) -> None: ...

    def remove(self, name: str, mark: Mark) -> None:
        (self._folder / name).unlink(missing_ok=True)


def open_driver(kind: str, settings: Mapping[str, Any], secrets: Mapping[str, str]) -> FileHost:
    assert kind == "file"
    return FileHost(settings)
