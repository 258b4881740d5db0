"""A bench for each scenario: a product of its own with short intervals."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.bench import SHORT, Bench
from tests.product import Product


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    env = {**SHORT, "RASWEB_ALLOWED_ROOTS": str(tmp_path / "hosts")}
    product = Product(tmp_path / "data", env)
    yield Bench(product, tmp_path / "hosts")
    product.close()
