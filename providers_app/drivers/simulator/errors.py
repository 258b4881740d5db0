"""The one place where errors of the simulator's files become ours."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from providers_app.drivers.oserrors import fault


@contextmanager
def errors(what: str, where: str) -> Iterator[None]:
    """Turn an OSError about ``what`` of the simulator at ``where`` into a DriverError."""
    try:
        yield
    except OSError as error:
        raise fault(error, what, where) from error
