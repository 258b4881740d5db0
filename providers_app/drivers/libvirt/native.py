"""Bytes between a stream and our own memory.

These are functions of the C library that libvirt-python stands on. Its own for the same make an object of each piece:
one copy more of all that is sent, and two of all that is received.
"""

from __future__ import annotations

import ctypes
from contextlib import suppress
from functools import cache
from typing import Any

NOTHING_YET, AT_HOLE = -2, -3
_STOP_AT_HOLE = 1  # VIR_STREAM_RECV_STOP_AT_HOLE
_pointer = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(
    ("PyCapsule_GetPointer", ctypes.pythonapi)
)


def send(stream: Any, data: memoryview) -> int:
    """Send the beginning of ``data``; return how many bytes the library took."""
    if data.readonly:
        data = memoryview(bytearray(data))
    return _checked("virStreamSend", _library().virStreamSend(_of(stream), _start(data), len(data)))


def receive(stream: Any, view: memoryview) -> int:
    """Fill the beginning of ``view``; return how many bytes came.

    0: the stream has ended. ``AT_HOLE``: a hole comes next, its length is to be asked for. ``NOTHING_YET``: only of a
    stream that does not wait.
    """
    count = _library().virStreamRecvFlags(_of(stream), _start(view), len(view), _STOP_AT_HOLE)
    return count if count in (NOTHING_YET, AT_HOLE) else _checked("virStreamRecvFlags", count)


def give_up(stream: Any) -> None:
    import libvirt

    with suppress(libvirt.libvirtError):
        stream.abort()


def _of(stream: Any) -> Any:
    return _pointer(stream._o, b"virStreamPtr")


def _start(view: memoryview) -> Any:
    return ctypes.byref(ctypes.c_char.from_buffer(view))


def _checked(name: str, count: int) -> int:
    import libvirt

    if count < 0:
        raise libvirt.libvirtError(f"{name}() failed")
    return count


@cache
def _library() -> ctypes.CDLL:
    """Return the very library that libvirt-python was loaded with."""
    import libvirtmod

    library = ctypes.CDLL(libvirtmod.__file__)
    library.virStreamSend.argtypes = ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t
    library.virStreamRecvFlags.argtypes = ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_uint
    return library
