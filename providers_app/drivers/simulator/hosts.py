"""Where a simulator lives, and what it invents when it is added."""

from __future__ import annotations

import os
import random
import uuid
from collections.abc import Mapping
from typing import Any

from providers_app.drivers import files
from providers_app.drivers.base import Definition
from providers_app.drivers.errors import Missing, Refused, Unreachable
from providers_app.drivers.files import Root, gone, open_below, shown
from providers_app.drivers.simulator.errors import errors
from providers_app.drivers.simulator.index import BLOBS, FILE, LOCK, Blob, Index, Machine, Store

_MOST_VMS, _MOST_MIB = 100, 4096
_CHUNK, _EVERY = 1 << 20, 4 << 20


def log_in(settings: Mapping[str, Any], secrets: Mapping[str, str]) -> None:
    """Refuse the one password that is wrong."""
    if secrets.get("password") == "wrong":
        raise Refused(
            f"The simulator at {_path(settings)} refused the password.",
            code="PERMISSION",
            action="Correct the password.",
        )


def connect(settings: Mapping[str, Any]) -> Store:
    """Open a registered simulator; Unreachable when it is not there, or is another one."""
    with errors("its folder", _path(settings)):
        try:
            store = Store(_open(settings))
        except FileNotFoundError:
            raise gone(_path(settings)) from None
        try:
            found, expected = store.read().host_id, settings.get("host_id")
            if expected and found != expected:
                raise Unreachable(
                    f"Another host is mounted at {_path(settings)}.", action="Mount the right one."
                )
        except BaseException:
            store.close()
            raise
        return store


def register(settings: Mapping[str, Any]) -> str:
    """Make what is missing, invent the sample VMs, return the host's id."""
    with errors("its folder", _path(settings)), _open_or_make(settings) as root:
        with root.lock(LOCK):
            if root.stat(BLOBS) is None:
                root.make_folder(BLOBS)
            store = Store(root)
            if root.stat(FILE) is None:
                store.save(Index(str(uuid.uuid4())))
        with store.change() as index:
            _invent(store, index, settings)
        store.blobs.close()
        return index.host_id


def _invent(store: Store, index: Index, settings: Mapping[str, Any]) -> None:
    count = min(_MOST_VMS, int(settings.get("vms") or 0))
    size = min(_MOST_MIB, int(settings.get("size_mib") or 16)) << 20
    known = {machine.name for machine in index.vms}
    for name in (f"sample-{number}" for number in range(1, count + 1)):
        if name not in known:
            blob = files.token()
            index.making += (blob,)
            store.save(index)
            fd = store.new_blob(blob)
            _fill(fd, size, name)
            index.vms += (Machine(files.token(), name, (Blob(blob, "raw"),), Definition(2048, 2)),)
            index.making = index.making[:-1]
            store.save(index)
            os.close(fd)


def _fill(fd: int, size: int, name: str) -> None:
    """Write bytes that are the same for the same name, with holes between them."""
    invented = random.Random(name)  # noqa: S311 - sample bytes, no secret
    os.ftruncate(fd, size)
    for offset in range(0, size, _EVERY):
        files.do(os.pwrite, fd, invented.randbytes(min(_CHUNK, size - offset)), offset)
    files.do(os.fsync, fd)


def _open(settings: Mapping[str, Any]) -> Root:
    roots = settings.get("roots", ())
    return open_below(str(settings.get("path", "")), [str(root) for root in roots])


def _open_or_make(settings: Mapping[str, Any]) -> Root:
    try:
        return _open(settings)
    except FileNotFoundError:
        outer, name = os.path.split(str(settings["path"]).rstrip("/"))
    try:
        with open_below(outer, [str(root) for root in settings.get("roots", ())]) as parent:
            parent.make_folder(name)
    except FileNotFoundError:
        raise Missing(
            f"There is no folder {shown(outer, 300)}.",
            code="PREREQUISITE",
            action="Make it, then add the host again.",
        ) from None
    return _open(settings)


def _path(settings: Mapping[str, Any]) -> str:
    return shown(str(settings.get("path", "")), 300)
