"""Freezing a host in the very middle of its work, however fast it is: the kernel asks before a file is opened."""

from __future__ import annotations

import ctypes
import os
import select
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.lab.hosts import Host

_CONTENT, _CLOSE_ON_EXEC, _ADD = 0x4, 0x1, 0x1  # see fanotify(7)
_OPENING, _OF_CHILDREN, _CURRENT_FOLDER = 0x0001_0000, 0x0800_0000, -100
_ALLOW = 1
_EVENT = struct.Struct("=IBBHQii")
_ANSWER = struct.Struct("=iI")
_LOOK_SECONDS = 0.1


@contextmanager
def frozen_at(host: Host, folder: Path, due: Callable[[], bool]) -> Iterator[threading.Event]:
    """Freeze the daemon of a host as soon as a file of the folder is opened while ``due``, and set the event.

    Whoever opens one waits until that is decided: what made it ``due`` goes no further. Afterwards it is thawed.
    """
    watch = _watch(folder)
    frozen, over = threading.Event(), threading.Event()

    def follow() -> None:
        while not (frozen.is_set() or over.is_set()):
            if select.select([watch], [], [], _LOOK_SECONDS)[0]:
                opened = _opened(watch)
                if due():
                    host.freeze()
                    frozen.set()
                os.write(watch, _ANSWER.pack(opened, _ALLOW))
                os.close(opened)
        os.close(watch)  # which allows whatever is asked

    following = threading.Thread(target=follow)
    following.start()
    try:
        yield frozen
    finally:
        over.set()
        following.join()
        if host.first():
            host.thaw()


def _watch(folder: Path) -> int:
    kernel = ctypes.CDLL(None, use_errno=True)
    watch = int(kernel.fanotify_init(_CONTENT | _CLOSE_ON_EXEC, os.O_RDONLY))
    mask = ctypes.c_uint64(_OPENING | _OF_CHILDREN)
    if watch < 0 or kernel.fanotify_mark(watch, _ADD, mask, _CURRENT_FOLDER, os.fsencode(folder)) < 0:
        raise OSError(ctypes.get_errno(), "fanotify")
    return watch


def _opened(watch: int) -> int:
    """The descriptor of the file that somebody waits to open."""
    return int(_EVENT.unpack(os.read(watch, _EVENT.size))[5])
