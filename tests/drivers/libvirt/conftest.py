"""A bench on the lab's first host, for what only libvirt hosts have."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.bench import LibvirtBench
from tests.lab.hosts import Lab


@pytest.fixture
def bench(lab: Lab, tmp_path: Path) -> Iterator[LibvirtBench]:
    made = LibvirtBench(tmp_path, lab.hosts[0])
    yield made
    made.close()
