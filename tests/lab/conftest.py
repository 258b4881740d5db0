"""Fresh pools on the lab's hosts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.bench import LibvirtBench
from tests.lab.desk import host
from tests.lab.fixtures import lab, require
from tests.lab.hosts import Lab


@pytest.fixture
def bench(lab: Lab, tmp_path: Path) -> Iterator[LibvirtBench]:
    made = LibvirtBench(tmp_path, lab.hosts[0])
    yield made
    made.close()


@pytest.fixture
def benches(lab: Lab, tmp_path: Path) -> Iterator[list[LibvirtBench]]:
    made = [LibvirtBench(tmp_path, host) for host in lab.hosts]
    yield made
    for each in made:
        each.close()


@pytest.fixture(scope="module")
def small_lab() -> Iterator[Lab]:
    """One host whose folder for images holds 24 MiB."""
    require()
    with Lab(1, pool_mib=24) as running:
        yield running


__all__ = ["bench", "benches", "host", "lab", "small_lab"]
