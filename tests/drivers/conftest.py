"""One bench for each kind of host there is."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from providers_app.drivers import KINDS, CloneSpec, Definition, Driver, Image
from tests.drivers.benches import BENCHES, GUEST, IMAGE, NAME, Bench, known_bytes
from tests.drivers.copying import publish
from tests.lab.bench import LibvirtBench
from tests.lab.fixtures import lab


@pytest.fixture(params=sorted(KINDS))
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    """A fresh host of each kind; a kind without a bench fails here."""
    made = _made(request, tmp_path)
    yield made
    made.close()


@pytest.fixture(params=sorted(BENCHES))
def folder_bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    """A fresh host of each kind that is a folder of this machine."""
    made = BENCHES[request.param](tmp_path)
    yield made
    made.close()


def _made(request: pytest.FixtureRequest, folder: Path) -> Bench:
    if request.param == LibvirtBench.kind:
        return LibvirtBench(folder, request.getfixturevalue("lab").hosts[0])
    return BENCHES[request.param](folder)


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory where there is one: open to all, and quick."""
    if not os.access("/dev/shm", os.W_OK):
        yield tmp_path
        return
    with TemporaryDirectory(dir="/dev/shm") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.fixture
def host(bench: Bench) -> Driver:
    return bench.connected()


@pytest.fixture
def image(host: Driver) -> Image:
    """A published image with known bytes."""
    return publish(host, known_bytes(), NAME, IMAGE)


@pytest.fixture
def spec(image: Image) -> CloneSpec:
    """One guest to make of that image."""
    return CloneSpec("desk 1", (image.ref,), ("raw",), False, Definition(2048, 2, "lan"), GUEST)


__all__ = ["bench", "folder_bench", "host", "image", "lab", "spec"]
