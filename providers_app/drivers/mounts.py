"""Which file systems copy within themselves. On others the kernel reads everything over the network and writes it
back."""

from __future__ import annotations

import os

MOUNTS = "/proc/self/mountinfo"
_FAR = frozenset({"nfs", "9p", "ceph"})
_SERVER_COPIES = "vers=4.2"


def copies_within(fd: int) -> bool:
    """Tell whether a copy made by the kernel stays where an open file lies; yes where that can not be known."""
    device = os.fstat(fd).st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    try:
        with open(MOUNTS, encoding="utf-8", errors="replace") as lines:
            found = [line for line in lines if line.split(" ", 3)[2:3] == [wanted]]
    except OSError:
        return True
    return not found or _within(*found[-1].partition(" - ")[2].split(" ", 2))


def _within(kind: str, _origin: str = "", options: str = "") -> bool:
    if kind == "nfs4":
        return _SERVER_COPIES in options.rstrip().split(",")
    return kind not in _FAR and not kind.startswith("fuse")
