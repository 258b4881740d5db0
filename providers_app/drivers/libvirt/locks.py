"""Who works on what: locks between the processes of this machine that end with their holder.

libvirt locks no volume. A name in the kernel's own list of sockets is taken by one process at most, needs no file, and
is free again when its holder ends, however it ends. Processes on other machines are kept apart by the claims in the
database, and by the names of what they write, which are never the same.
"""

from __future__ import annotations

import hashlib
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager

from providers_app.drivers.errors import Unreachable


class Lock:
    """A held lock; close it to let go."""

    def __init__(self, held: socket.socket) -> None:
        self._held = held

    def close(self) -> None:
        self._held.close()


def take(*name: str) -> Lock | None:
    """Take a lock, or return None while somebody holds it."""
    digest = hashlib.sha256("\0".join(name).encode()).hexdigest()[:40]
    held = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        held.bind(f"\0rasweb-libvirt-{digest}")
    except OSError:
        held.close()
        return None
    return Lock(held)


@contextmanager
def holding(*name: str, seconds: float = 20.0) -> Iterator[None]:
    """Hold a lock for a short change; TIMEOUT when another process holds it too long."""
    deadline = time.monotonic() + seconds
    while (lock := take(*name)) is None:
        if time.monotonic() > deadline:
            raise Unreachable(
                "Another process works on this host for too long.", code="TIMEOUT", action="Retry."
            )
        time.sleep(0.01)
    try:
        yield
    finally:
        lock.close()
