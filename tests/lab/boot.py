"""A guest system of 512 bytes: it says one word on its serial line, again and again."""

from __future__ import annotations

import time
from typing import Any

_ORIGIN = 0x7C00
_START = bytes.fromhex("fa 31c0 8ed8 fb")  # cli; ds = 0; sti
_SAY = bytes.fromhex("baf803 ac 84c0 7403 ee ebf8")  # to port 3f8 until a zero
_REST = bytes.fromhex("f4")  # hlt until the next tick of the clock


def boot_sector(word: str) -> bytes:
    """Return a boot sector that says ``word`` about 18 times a second."""
    body = len(_START) + 3 + len(_SAY) + len(_REST) + 2
    load = b"\xbe" + (_ORIGIN + body).to_bytes(2, "little")
    again = b"\xeb" + (len(_START) - body).to_bytes(1, "little", signed=True)
    code = _START + load + _SAY + _REST + again + word.encode() + b"\r\n\0"
    if len(code) > 510:
        raise ValueError("the word is too long")
    return code.ljust(510, b"\0") + b"\x55\xaa"


def hear(connection: Any, name: str, word: str, seconds: float = 20.0) -> bool:
    """Listen to a running VM until it says ``word``."""
    import libvirt

    stream = connection.newStream(libvirt.VIR_STREAM_NONBLOCK)
    connection.lookupByName(name).openConsole(None, stream, 0)
    heard, deadline = b"", time.monotonic() + seconds
    try:
        while word.encode() not in heard and time.monotonic() < deadline:
            part = stream.recv(4096)
            if isinstance(part, bytes):
                heard = (heard + part)[-4096:]
            else:
                time.sleep(0.05)
    finally:
        stream.abort()
    return word.encode() in heard
