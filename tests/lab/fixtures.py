"""The lab as a fixture: started once in each test process that needs it, and ended with it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping

import pytest

from tests.lab.hosts import PROGRAMS, Lab, obstacle


def require(programs: Mapping[str, str] = PROGRAMS) -> None:
    """Fail where the lab is required, which is where CI is set; elsewhere skip and say what is missing."""
    if why := obstacle(programs):
        if os.environ.get("CI"):
            pytest.fail(why)
        pytest.skip(why)


@pytest.fixture(scope="session")
def lab() -> Iterator[Lab]:
    """Three hosts. A test that cuts the power of one boots it again."""
    require()
    with Lab(3) as running:
        yield running
