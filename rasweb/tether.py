"""Ties a process to the one that started it. Runs in front of every program, so it loads next to nothing."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG, _PR_SET_NAME = 1, 15


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when its parent ends.

    ``parent`` is the pid of the process that started this one, as that process knew it. Exits with status 1 when it is
    already gone. Off Linux only that check is made.
    """
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) was refused")
    if os.getppid() != parent:
        os._exit(1)


def rename(name: str) -> None:
    """Have process lists call this process so, as far as 15 characters say it. Linux only."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_NAME, name.encode(), 0, 0, 0)


def _main(args: list[str]) -> None:
    die_with_parent(int(args[0]))
    try:
        os.execvp(args[1], args[1:])
    except OSError as error:
        sys.exit(f"{args[1]}: {error.strerror}")


if __name__ == "__main__":
    _main(sys.argv[1:])
