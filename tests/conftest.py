"""What all tests share."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from rasweb.loading import loading
from tests import prepared
from tests.product import Product

WAITING = (
    "lab/test_hosts_at_fault.py",
    "e2e/test_distribution.py",
    "lab",
    "faults",
    "e2e",
    "rasweb",
    "commands",
)  # files and folders whose tests wait for a started product, longest first
EARLY = 0.7  # the last of them begins after this part of the others
WORKING = (
    "templates_app",
    "pages",
    "drivers/test_crashes.py",
    "transfer",
)  # of the others, what takes longest

TOGETHER = (
    ("e2e/test_distribution.py", "e2e/test_lists.py", "e2e/test_login.py"),
    ("e2e/test_maintenance.py", "e2e/test_live.py", "e2e/test_looks.py"),
    ("lab/test_guests.py", "lab/test_faults.py", "lab/test_crashes.py", "lab/test_copies.py"),
)  # files on one process, since they share what takes long to start


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """``--dist loadfile`` that keeps files that share something on one process."""
    if config.getvalue("dist") != "loadfile":
        return None
    from xdist.scheduler import LoadFileScheduling

    class Scheduling(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = super()._split_scope(nodeid)
            return next((shared[0] for shared in TOGETHER if file.endswith(shared)), file)

    return Scheduling(config, log)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mix tests that wait with tests that work, so that no processor is idle, and leave the short ones for the end."""
    files = dict.fromkeys(item.path for item in items)
    waiting = sorted((file for file in files if _rank(file, WAITING) < len(WAITING)), key=_waiting)
    working = sorted((file for file in files if file not in set(waiting)), key=_working)
    turn = {file: EARLY * number / len(waiting) for number, file in enumerate(waiting)}
    turn.update((file, number / len(working)) for number, file in enumerate(working))
    items.sort(key=lambda item: turn[item.path])


def _rank(file: Path, order: Sequence[str]) -> int:
    name = str(file.relative_to(Path(__file__).parent))
    return next((rank for rank, start in enumerate(order) if name.startswith(start)), len(order))


_waiting, _working = partial(_rank, order=WAITING), partial(_rank, order=WORKING)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    with loading():
        return (yield)


@pytest.fixture(scope="session", autouse=True)
def _prepared(tmp_path_factory: pytest.TempPathFactory) -> None:
    base = tmp_path_factory.getbasetemp()
    prepared.FOLDER = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "prepared"


@pytest.fixture(autouse=True)
def installation(request: pytest.FixtureRequest) -> None:
    """Tests with transactions of their own empty the database, also of what migrations wrote."""
    if "db" in request.fixturenames or request.node.get_closest_marker("django_db"):
        request.getfixturevalue("db")
        from providers_app.models import Installation

        if not Installation.objects.exists():
            Installation.objects.create()


@pytest.fixture
def product(tmp_path: Path) -> Iterator[Product]:
    """An installation of its own; the test starts it. Nothing of it is left afterwards."""
    product = Product(tmp_path / "data")
    yield product
    product.close()
