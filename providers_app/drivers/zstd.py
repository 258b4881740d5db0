"""Unpacking zstd, by the library that Linux distributions have anyway: some qcow2 images are compressed with it."""

from __future__ import annotations

import ctypes
from functools import cache

_LIBRARY = "libzstd.so.1"


def available() -> bool:
    return _library() is not None


def unpack(packed: bytes, length: int) -> bytes:
    """Return the ``length`` bytes of the first frame in ``packed``, whatever follows it; ValueError for damage."""
    library = _library()
    if library is None:
        raise ValueError("no library for zstd")
    end = library.ZSTD_findFrameCompressedSize(packed, len(packed))
    if end > len(packed):  # error numbers are the largest there are
        raise ValueError("no whole frame")
    room = ctypes.create_string_buffer(length)
    if library.ZSTD_decompress(room, length, packed, end) != length:
        raise ValueError("not the expected length")
    return room.raw


@cache
def _library() -> ctypes.CDLL | None:
    try:
        library = ctypes.CDLL(_LIBRARY)
    except OSError:
        return None
    library.ZSTD_findFrameCompressedSize.argtypes = (ctypes.c_char_p, ctypes.c_size_t)
    library.ZSTD_findFrameCompressedSize.restype = ctypes.c_size_t
    library.ZSTD_decompress.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p, ctypes.c_size_t)
    library.ZSTD_decompress.restype = ctypes.c_size_t
    return library
