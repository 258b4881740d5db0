"""What the contract suite needs of each kind of host: a fresh one, known bytes on it, and things of others."""

from __future__ import annotations

import json
import os
import random
import shutil
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from providers_app.drivers import Driver, Mark, open_driver

MIB = 1 << 20
SIZE = 2 * MIB + 12_345
"""Not a multiple of any block size."""
RUNS = ((0, 8192), (MIB, 65_536), (MIB + 300_000, 5000), (SIZE - 700, 700))


def known_bytes(seed: int = 1, size: int = SIZE, runs: Sequence[tuple[int, int]] = RUNS) -> bytes:
    """Return an image that is mostly holes."""
    content = bytearray(size)
    for offset, length in runs:
        content[offset : offset + length] = random.Random(f"{seed}{offset}").randbytes(length)
    return bytes(content)


def write_sparse(path: Path, content: bytes, runs: Sequence[tuple[int, int]] = RUNS) -> None:
    with path.open("wb") as file:
        file.truncate(len(content))
        for offset, length in runs:
            file.seek(offset)
            file.write(content[offset : offset + length])


class Bench(ABC):
    """One fresh host of a kind. ``folder`` is all there is of it; ``networks`` is what a survey says of them."""

    kind: str
    networks: tuple[str, ...] | None = None

    def __init__(self, root: Path) -> None:
        self.root = root
        self.folder = root / "host"
        self._open = ExitStack()
        self.settings = self.make()

    @abstractmethod
    def make(self) -> dict[str, Any]:
        """Register the host; return its settings."""

    @abstractmethod
    def add_vm(self, name: str, content: bytes) -> str:
        """Make a source VM with one raw disk; return the disk's ref."""

    @abstractmethod
    def add_foreign_image(self, name: str) -> None: ...

    @abstractmethod
    def add_foreign_guest(self, name: str) -> None: ...

    @abstractmethod
    def path(self, ref: str) -> Path:
        """Return the file of a disk or image."""

    @abstractmethod
    def empty(self) -> None:
        """Take away what tells the host from an empty mount point."""

    @abstractmethod
    def litter(self) -> list[str]:
        """Return what lies about that belongs to no published image, VM or the host itself."""

    def only_network(self, name: str) -> dict[str, Any]:
        """Leave the host with one network alone; return settings to connect with from then on."""
        return {"networks": name}

    def driver(self, **settings: Any) -> Driver:
        return open_driver(self.kind, {**self.settings, **settings})

    def connected(self, **settings: Any) -> Driver:
        """Return a driver that is connected until the bench is closed."""
        return self._open.enter_context(self.driver(**settings))

    def close(self) -> None:
        self._open.close()

    def everything(self) -> Mapping[str, bytes]:
        """Return all files with their content."""
        found = (path for path in sorted(self.folder.rglob("*")) if path.is_file())
        return {str(path.relative_to(self.folder)): path.read_bytes() for path in found}

    def move_away(self) -> Path:
        return Path(shutil.move(self.folder, self.root / "elsewhere"))


class DirectoryBench(Bench):
    kind = "directory"

    def make(self) -> dict[str, Any]:
        self.folder.mkdir()
        settings = {"path": str(self.folder), "roots": [str(self.root)]}
        open_driver(self.kind, settings).register()
        return settings

    def add_vm(self, name: str, content: bytes) -> str:
        folder = self.folder / "vms" / name
        folder.mkdir()
        write_sparse(folder / "disk0.raw", content)
        (folder / "vm.json").write_text(json.dumps({"memory_mib": 2048, "vcpus": 2, "network": "lan"}))
        return f"vms/{name}/disk0.raw"

    def add_foreign_image(self, name: str) -> None:
        (self.folder / "images" / name).write_bytes(b"somebody else's")

    def add_foreign_guest(self, name: str) -> None:
        (self.folder / "guests" / name).mkdir()
        (self.folder / "guests" / name / "disk0.raw").write_bytes(b"somebody else's")

    def path(self, ref: str) -> Path:
        return self.folder / ref

    def empty(self) -> None:
        (self.folder / ".rasweb-host.json").unlink()

    def litter(self) -> list[str]:
        images = os.listdir(self.folder / "images")
        known = {name for name in images if not name.startswith(".")}
        known |= {f".{name}.rasweb.json" for name in known}
        sides = [
            name for room in ("guests", "vms") for name in os.listdir(self.folder / room) if name[0] == "."
        ]
        return sorted(set(images) - known) + sides


class SimulatorBench(Bench):
    kind = "simulator"

    def make(self) -> dict[str, Any]:
        settings = {"path": str(self.folder), "roots": [str(self.root)], "vms": 0}
        open_driver(self.kind, settings).register()
        return settings

    def add_vm(self, name: str, content: bytes) -> str:
        blob = f"{random.Random(name).getrandbits(64):016x}"
        write_sparse(self.folder / "blobs" / blob, content)
        definition = {"memory_mib": 2048, "vcpus": 2, "network": "lan"}
        self._add(
            "vms",
            {
                "id": f"vm-{blob}",
                "name": name,
                "blobs": [{"id": blob, "format": "raw"}],
                "definition": definition,
            },
        )
        return blob

    def add_foreign_image(self, name: str) -> None:
        (self.folder / "blobs" / "foreign-image").write_bytes(b"somebody else's")
        self._add("images", {"id": "foreign-image", "name": name, "size": 15, "mark": None})

    def add_foreign_guest(self, name: str) -> None:
        (self.folder / "blobs" / "foreign-guest").write_bytes(b"somebody else's")
        blobs = [{"id": "foreign-guest", "format": "raw"}]
        self._add("guests", {"id": "guest-x", "name": name, "blobs": blobs, "definition": {}})

    def path(self, ref: str) -> Path:
        return self.folder / "blobs" / ref

    def empty(self) -> None:
        (self.folder / "simulator.json").unlink()

    def litter(self) -> list[str]:
        index = self._index()
        known = {
            blob["id"] for room in ("vms", "guests") for machine in index[room] for blob in machine["blobs"]
        }
        known |= {image["id"] for image in index["images"]}
        return sorted(set(os.listdir(self.folder / "blobs")) - known)

    def switch(self, faults: str) -> None:
        (self.folder / "faults").write_text(faults)

    def _index(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.folder / "simulator.json").read_text())
        return found

    def _add(self, room: str, record: dict[str, Any]) -> None:
        index = self._index()
        index[room].append(record)
        (self.folder / "simulator.json").write_text(json.dumps(index))


BENCHES: dict[str, type[Bench]] = {"directory": DirectoryBench, "simulator": SimulatorBench}

IMAGE = Mark("here", "image", "template-1", 1, 0, "d1" * 32)
GUEST = Mark("here", "guest", "guest-1")
NAME = "win11-v1-0123456789ab.raw"
UNRESOLVED = "win11-v1-{digest12}.raw"
UNKNOWN = replace(IMAGE, digest="")
OTHERS = replace(IMAGE, installation="elsewhere")
