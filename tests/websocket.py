"""A browser's end of a websocket, as far as tests need it: it connects and reads texts."""

from __future__ import annotations

import base64
import json
import os
import socket
import struct
import time
from typing import Any
from urllib.parse import urlsplit


class WebSocket:
    """Open with the cookie of a session; ``status`` is the answer to the handshake, 101 when accepted."""

    def __init__(self, base_url: str, path: str, cookie: str, origin: str = "") -> None:
        address = urlsplit(base_url)
        self._socket = socket.create_connection((address.hostname, address.port), timeout=10)
        key = base64.b64encode(os.urandom(16)).decode()
        lines = [
            f"GET {path} HTTP/1.1",
            f"Host: {address.netloc}",
            "Upgrade: websocket",
            "Connection: Upgrade",
            f"Sec-WebSocket-Key: {key}",
            "Sec-WebSocket-Version: 13",
            f"Origin: {origin or base_url}",
            f"Cookie: {cookie}",
        ]
        self._socket.sendall("\r\n".join([*lines, "", ""]).encode())
        self._stream = self._socket.makefile("rb")
        self.status = int(self._stream.readline().split()[1])
        while self._stream.readline() not in (b"\r\n", b""):
            pass

    def fileno(self) -> int:
        return self._socket.fileno()

    def next(self, seconds: float = 10.0) -> dict[str, Any]:
        """The next text, from JSON. Fails after ``seconds`` or when the server closes."""
        self._socket.settimeout(seconds)
        while True:
            first, second = self._stream.read(2)
            length = second & 0x7F
            if length > 125:
                size = 2 if length == 126 else 8
                length = struct.unpack("!H" if size == 2 else "!Q", self._stream.read(size))[0]
            data = self._stream.read(length)
            assert first & 0x0F != 8, f"closed by the server: {data!r}"
            if first & 0x0F == 9:
                self.pong(data)
            if first & 0x0F == 1:
                return dict(json.loads(data))

    def pong(self, data: bytes) -> None:
        """Answer a ping; the mask that browsers must use is zero here."""
        self._socket.sendall(bytes([0x8A, 0x80 | len(data)]) + bytes(4) + data)

    def frame(self, topic: str, seconds: float = 10.0) -> dict[str, Any]:
        """The next frame of ``topic``."""
        deadline = time.monotonic() + seconds
        while (message := self.next(max(0.01, deadline - time.monotonic()))).get("topic") != topic:
            pass
        return message

    def close(self) -> None:
        self._stream.close()
        self._socket.close()
