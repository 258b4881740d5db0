"""A process that dies in the middle of a verb, without the process: from that moment on it changes nothing any more."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from providers_app.drivers import Driver, files


class Dead(BaseException):
    """Raised at the change before which the process died, and at each that it would have made while it cleans up."""


def dies_before(change: int, driver: Driver, act: Callable[[Driver], object]) -> bool:
    """Run ``act``, cut off before its n-th change; tell whether it made so many."""
    left, real, before = change, files.do, _open_files()

    def do(call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        nonlocal left
        left -= 1
        if left <= 0:
            raise Dead
        return real(call, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patched, suppress(Dead), driver as host:
        patched.setattr(files, "do", do)
        act(host)
    for fd in _open_files() - before:
        os.close(fd)  # as the kernel does, with the locks on them
    return left <= 0


def _open_files() -> set[int]:
    """The files and folders that this process holds open."""
    found = set()
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError):  # that of the listing
            kind = stat.S_IFMT(os.fstat(int(name)).st_mode)
            if kind in (stat.S_IFREG, stat.S_IFDIR):
                found.add(int(name))
    return found
