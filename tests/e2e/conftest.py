"""One product and one browser for most modules; a new profile for each test."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from tests.e2e import desk as desks
from tests.e2e.site import HOSTS, Site


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.product)


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Started for the first time: no users, no hosts. For a module whose tests need one of their own."""
    site = Site(tmp_path_factory.mktemp("site"))
    yield site.start()
    site.product.close()


@pytest.fixture(scope="package")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Shared by modules: what a test makes there has names of its own."""
    site = Site(tmp_path_factory.mktemp("shared"))
    site.put_vm("ams-01")
    yield site.start().furnish(HOSTS)
    site.product.close()


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    with desks.chromium() as browser:
        yield browser


@pytest.fixture
def desk(site: Site, browser: Browser) -> Iterator[desks.Desk]:
    desk = desks.Desk(site, browser)
    yield desk
    desk.leave()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """With a failure comes what the product has written."""
    report = yield
    used = getattr(item, "funcargs", {})
    site = used.get("site") or used.get("bare")
    if report.failed and site:
        report.sections.append(("Output of the product", site.product.output[-5000:]))
    return report
