"""The journal of one disk at one host: which leaves are durable there. File format 1, see docs/formats.md.

It is a hint, never a proof: what it claims is hashed again on the host before it counts. So it is not flushed, and a
journal that is torn, garbled or about another staged file only means that more is sent again.
"""

from __future__ import annotations

import json
import os
import sys
import zlib
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass

from .extents import Run, merged

VERSION = 1
_LARGEST = 64 << 20


@dataclass(frozen=True)
class Subject:
    """What a journal is about: a staged file by its ``token``, and the geometry of its disk in bytes."""

    token: str
    size: int
    leaf_size: int

    def header(self) -> bytes:
        return json.dumps({"rasweb-journal": VERSION} | asdict(self), sort_keys=True).encode()


def claims(path: str, subject: Subject) -> list[Run]:
    """Runs of leaves that a journal claims to be durable; none when it is missing, foreign or garbled."""
    try:
        with open(path, "rb") as file:
            content = file.read(_LARGEST)
    except OSError:
        return []
    header, *records = content.split(b"\n")
    if header != subject.header():
        return []
    return merged(_records(records[:-1], subject))


def _records(lines: Sequence[bytes], subject: Subject) -> Iterable[Run]:
    seed = zlib.crc32(subject.header())
    leaves = -(-subject.size // subject.leaf_size)
    for line in lines:
        words = line.split(b" ")
        if len(words) != 3 or not words[0].isdigit() or not words[1].isdigit():
            return
        first, end = int(words[0]), int(words[1])
        if line != _record((first, end), seed) or not 0 <= first < end <= leaves:
            return
        yield first, end


def _record(run: Run, seed: int) -> bytes:
    text = b"%d %d" % run
    return b"%s %08x" % (text, zlib.crc32(text, seed))


class Journal:
    """A journal that is being written. A disk too full for it costs the resume, never the copy."""

    def __init__(self, path: str, subject: Subject) -> None:
        self.path = path
        self._seed = zlib.crc32(subject.header())
        self._header = subject.header()
        self._descriptor: int | None = None

    def begin(self, proven: Iterable[Run]) -> None:
        """Start anew with what was proven; an older journal is replaced in one step."""
        side = f"{self.path}.part"
        try:
            os.makedirs(os.path.dirname(self.path) or ".", exist_ok=True)
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
            self._descriptor = os.open(side, flags, 0o600)
            self._write(self._descriptor, self._header + b"\n")
            os.rename(side, self.path)
        except OSError as error:
            self._give_up(error)
        self.add(proven)

    def add(self, runs: Iterable[Run]) -> None:
        """Claim runs. To be called after the host said that they are durable."""
        lines = b"".join(_record(run, self._seed) + b"\n" for run in merged(runs))
        if lines and self._descriptor is not None:
            try:
                self._write(self._descriptor, lines)
            except OSError as error:
                self._give_up(error)

    @staticmethod
    def _write(descriptor: int, content: bytes) -> None:
        if os.write(descriptor, content) != len(content):
            raise OSError("the journal could not be written whole")

    def _give_up(self, error: OSError) -> None:
        print(f"journal: not kept any more ({error.strerror or error})", file=sys.stderr, flush=True)
        self.close()

    def close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def delete(self) -> None:
        """Close and remove it: there is nothing left to go on with."""
        self.close()
        for path in (self.path, f"{self.path}.part"):
            with suppress(OSError):  # never made, or gone already
                os.unlink(path)
