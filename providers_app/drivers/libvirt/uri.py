"""The address of a host, built from closed parts and checked anew each time, whatever a row may hold.

libvirt's own addresses can start programs and read files; so nobody but this module writes one.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from providers_app.drivers import files
from providers_app.drivers.errors import Refused

from .fields import DEFAULT_SOCKET

HOST = re.compile(r"(?!-)[A-Za-z0-9-]{1,63}(?:\.(?!-)[A-Za-z0-9-]{1,63})*")
USER = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}")
SOCKET = re.compile(r"/[A-Za-z0-9_./+-]{1,106}")
SSH = Path(__file__).with_name("ssh")


def build(settings: Mapping[str, Any]) -> str:
    """Return the address for libvirt; PREREQUISITE for parts that are not what they should be."""
    transport = settings.get("transport")
    if transport == "local":
        return f"qemu+unix:///system?socket={quote(_socket(settings), safe='/')}"
    host = _host(settings)
    if transport == "ssh":
        who = f"{_user(settings)}{host}{_port(settings)}"
        return f"qemu+ssh://{who}/system?no_tty=1&command={quote(str(SSH), safe='/')}"
    if transport == "tls":
        return f"qemu+tls://{host}{_port(settings)}/system"
    if transport == "tcp" and settings.get("plain_tcp") is True:
        return f"qemu+tcp://{host}{_port(settings)}/system"
    if transport == "tcp":
        raise _refused(
            "Connections without encryption are not allowed here.",
            "Use SSH or TLS, or allow them for the installation (RASWEB_ALLOW_PLAIN_TCP).",
        )
    raise _refused(f"There is no connection of the kind {_shown(transport)}.", "Use local, ssh, tls or tcp.")


def label(settings: Mapping[str, Any]) -> str:
    """Say which host is meant, for sentences."""
    where = settings.get("socket") if settings.get("transport") == "local" else settings.get("host")
    return files.shown(str(where or "?"))


def _host(settings: Mapping[str, Any]) -> str:
    host = settings.get("host")
    if isinstance(host, str) and host:
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            if len(host) <= 253 and HOST.fullmatch(host):
                return host
        else:
            if "%" not in host:
                return f"[{address}]" if address.version == 6 else str(address)
    raise _refused(f"{_shown(host)} is neither the name nor the address of a host.", "Correct the host.")


def _port(settings: Mapping[str, Any]) -> str:
    port = settings.get("port")
    if port in (None, ""):
        return ""
    if isinstance(port, int) and not isinstance(port, bool) and 0 < port < 65536:
        return f":{port}"
    raise _refused(f"{_shown(port)} is no port.", "Use a number from 1 to 65535.")


def _user(settings: Mapping[str, Any]) -> str:
    user = settings.get("user")
    if user in (None, ""):
        return ""
    if isinstance(user, str) and USER.fullmatch(user):
        return f"{user}@"
    raise _refused(f"{_shown(user)} is no name of an account.", "Correct the user.")


def _socket(settings: Mapping[str, Any]) -> str:
    path = settings.get("socket") or DEFAULT_SOCKET
    if not isinstance(path, str) or not SOCKET.fullmatch(path) or os.path.normpath(path) != path:
        raise _refused(f"{_shown(path)} is no path of a socket.", "Use an absolute path of plain characters.")
    real = Path(os.path.realpath(path))
    allowed = settings.get("sockets")
    roots = [str(root) for root in allowed] if isinstance(allowed, (list, tuple)) else []
    if not any(real.is_relative_to(os.path.realpath(root)) for root in roots):
        raise _refused(
            f"The socket {_shown(path)} lies outside the folders that are allowed for sockets.",
            "Choose a socket below an allowed folder, or have this one allowed (RASWEB_ALLOWED_SOCKETS).",
        )
    return path


def _shown(value: object) -> str:
    return f"“{files.shown(str(value or ''))}”"


def _refused(text: str, action: str) -> Refused:
    return Refused(text, code="PREREQUISITE", action=action)
