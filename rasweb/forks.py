"""Forked processes that never outlive their parent, for work whose program is loaded already. Standard library only."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable
from multiprocessing.context import ForkProcess
from typing import Any

from rasweb import tether

_FORK = multiprocessing.get_context("fork")


def forked(target: Callable[..., Any], *args: Any, daemon: bool = False) -> ForkProcess:
    """A process, not started yet, that runs ``target`` and dies with the thread that starts it.

    Start it while no other thread runs: a lock that one holds at the fork would stay locked for ever in the child.
    """
    return _FORK.Process(target=_tethered, args=(os.getpid(), target, *args), daemon=daemon)


def _tethered(parent: int, target: Callable[..., Any], *args: Any) -> None:
    tether.die_with_parent(parent)
    target(*args)
