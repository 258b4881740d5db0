"""A file system whose files share blocks (XFS), in a file of its own: what hosts gain that have one."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_NEW_MOUNTS = 0x00020000  # CLONE_NEWNS of unshare(2)
SMALLEST = 512 << 20


def obstacle() -> str:
    """Say what keeps this machine from making one; empty when nothing does."""
    if os.geteuid() != 0:
        return "making a file system needs root"
    if shutil.which("mkfs.xfs", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin") is None:
        return "making one needs the Debian package xfsprogs"
    return ""


@contextmanager
def reflinks(folder: Path, size: int) -> Iterator[Path]:
    """A folder on such a file system with room for ``size`` bytes; only this process and its children see it."""
    image, place = folder / "reflinks.img", folder / "reflinks"
    with image.open("wb") as file:
        file.truncate(max(size, SMALLEST))
    place.mkdir()
    try:
        _run("mkfs.xfs", "-q", "-m", "reflink=1", str(image))
        _hide_mounts()
        _run("mount", "-o", "loop", str(image), str(place))
        try:
            yield place
        finally:
            _run("umount", str(place))
    finally:
        place.rmdir()
        image.unlink()


def _hide_mounts() -> None:
    """Mount from now on where nobody else sees it: whatever becomes of this process, nothing stays mounted."""
    if ctypes.CDLL(None, use_errno=True).unshare(_NEW_MOUNTS):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    _run("mount", "--make-rprivate", "/")


def _run(*command: str) -> None:
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL, env={**os.environ, "PATH": path})
