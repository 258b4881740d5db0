"""The embedded channel layer: all processes send to the web process over a unix socket in the data folder.

One connection is one message to one group, as JSON: the kernel queues hundreds of them while the web process is
busy, and no process has a connection to keep. Groups and channels live in the web process's memory. A message
that nobody takes is dropped without an error: it was a hint.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import secrets
import socket
import stat
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from channels.layers import BaseChannelLayer

CAPACITY = 1000
_LONGEST_ADDRESS = 100
_LARGEST_MESSAGE = 1024 * 1024
_BACKLOG = 1024
_SENDER_SECONDS = 1.0
_PAUSE_SECONDS = 0.02


def address(folder: str) -> str:
    """Where the web process of a data folder listens: in it or, if its path is too long, in a private folder."""
    path = os.path.join(os.path.abspath(folder), "live.sock")
    if len(os.fsencode(path)) <= _LONGEST_ADDRESS:
        return path
    short = hashlib.sha256(os.fsencode(path)).hexdigest()[:16]
    return str(_private_folder() / f"{short}.sock")


def _private_folder() -> Path:
    folder = Path(tempfile.gettempdir(), f"rasweb-{os.getuid()}")
    folder.mkdir(mode=0o700, exist_ok=True)
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or status.st_mode & 0o077:
        raise PermissionError(f"{folder} is not a private folder of this user")
    return folder


def send_to(path: str, data: bytes, seconds: float) -> bool:
    """Whether somebody listens at ``path`` and got ``data``. Raises TimeoutError if it was not taken in time."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as outbox:
        outbox.settimeout(seconds)
        try:
            outbox.connect(path)
            outbox.sendall(data)
        except (FileNotFoundError, ConnectionError):
            return False
        except BlockingIOError:
            raise TimeoutError(f"{path} is not read") from None
    return True


class Relay(BaseChannelLayer):
    """Groups for one web process, filled from all processes that share ``folder``."""

    extensions = ["groups"]

    def __init__(self, folder: str, capacity: int = CAPACITY) -> None:
        super().__init__(capacity=capacity)
        self.address = address(folder)
        self._groups: dict[str, set[str]] = {}
        self._channels: dict[str, asyncio.Queue[dict[str, Any]]] = {}
        self._inbox: socket.socket | None = None

    def publish(self, group: str, message: dict[str, Any], seconds: float = 0.05) -> bool:
        """Send from any thread. False if no web process listens; TimeoutError if it takes nothing in time."""
        return send_to(self.address, json.dumps([group, message]).encode(), seconds)

    async def group_send(self, group: str, message: dict[str, Any]) -> None:
        await asyncio.to_thread(self.publish, group, message)

    async def new_channel(self, prefix: str = "relay") -> str:
        """A channel of this process. The first one opens the socket."""
        if self._inbox is None:
            self._listen()
        channel = f"{prefix}.{secrets.token_hex(8)}"
        self._channels[channel] = asyncio.Queue(self.capacity)
        return channel

    async def receive(self, channel: str) -> dict[str, Any]:
        return await self._channels[channel].get()

    async def send(self, channel: str, message: dict[str, Any]) -> None:
        self._put(channel, message)

    async def group_add(self, group: str, channel: str) -> None:
        self._groups.setdefault(group, set()).add(channel)

    async def group_discard(self, group: str, channel: str) -> None:
        self._groups.get(group, set()).discard(channel)

    async def close(self) -> None:
        """Stop listening; what others send is dropped from now on."""
        if self._inbox is not None:
            inbox, self._inbox = self._inbox, None
            inbox.shutdown(socket.SHUT_RDWR)
        self._channels.clear()
        self._groups.clear()

    def _listen(self) -> None:
        """Take the address over: whoever had it before has ended, or is about to."""
        self._inbox = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        draft = f"{self.address}.{secrets.token_hex(2)}"
        self._inbox.bind(draft)
        os.chmod(draft, 0o600)
        self._inbox.listen(_BACKLOG)
        os.rename(draft, self.address)
        reading = (self._inbox, asyncio.get_running_loop())
        threading.Thread(target=self._read, args=reading, name="relay", daemon=True).start()

    def _read(self, inbox: socket.socket, loop: asyncio.AbstractEventLoop) -> None:
        """In a thread of its own: senders do not wait for a busy loop."""
        with inbox, suppress(RuntimeError):  # the loop has been closed
            while inbox is self._inbox:
                try:
                    loop.call_soon_threadsafe(self._take, _receive(inbox))
                except OSError:
                    # A sender that died or hangs, an inbox that was shut down, or too many open files.
                    time.sleep(_PAUSE_SECONDS)

    def _take(self, data: bytes) -> None:
        match _decoded(data):
            case [str(group), dict(message)]:
                for channel in self._groups.get(group, ()):
                    self._put(channel, message)

    def _put(self, channel: str, message: dict[str, Any]) -> None:
        queue = self._channels.get(channel)
        if queue is not None and not queue.full():
            queue.put_nowait(message)


def _receive(inbox: socket.socket) -> bytes:
    """All of the next message."""
    sender, _ = inbox.accept()
    with sender, sender.makefile("rb") as stream:
        sender.settimeout(_SENDER_SECONDS)
        return stream.read(_LARGEST_MESSAGE)


def _decoded(data: bytes) -> Any:
    try:
        return json.loads(data)
    except ValueError:
        return None
