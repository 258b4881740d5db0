"""What libvirt says, and what the administrator reads."""

from __future__ import annotations

import errno
import sys

import pytest

from providers_app.drivers import DriverError, Refused
from providers_app.drivers.libvirt import connection, errors

RPC, STORAGE, QEMU = 7, 18, 10


class Said(Exception):
    """An error as libvirt's Python library gives it."""

    def __init__(self, code: int, text: str, domain: int = STORAGE, number: int = -1) -> None:
        super().__init__(text)
        self._known = code, domain, number

    def get_error_code(self) -> int:
        return self._known[0]

    def get_error_domain(self) -> int:
        return self._known[1]

    def get_int1(self) -> int:
        return self._known[2]


TABLE = [
    (Said(38, "Failed to connect socket", RPC, errno.ENOENT), "Unreachable", "UNREACHABLE"),
    (Said(38, "unable to connect to server", RPC, errno.ECONNREFUSED), "Unreachable", "UNREACHABLE"),
    (
        Said(38, "Cannot recv data: Connection reset by peer", RPC, errno.ECONNRESET),
        "Unreachable",
        "UNREACHABLE",
    ),
    (Said(1, "internal error: client socket is closed", RPC), "Unreachable", "UNREACHABLE"),
    (Said(1, "connection closed due to keepalive timeout", RPC), "Unreachable", "UNREACHABLE"),
    (Said(38, "Cannot recv data: Permission denied (publickey).", RPC), "Refused", "PERMISSION"),
    (Said(38, "Cannot recv data: Host key verification failed.", RPC), "Refused", "HOST_KEY"),
    (Said(45, "authentication failed: Failed to verify peer's certificate", RPC), "Refused", "CERTIFICATE"),
    (Said(38, "Unable to read TLS confirmation: Input/output error", RPC), "Refused", "PERMISSION"),
    (Said(38, "Failed to connect socket: Permission denied", RPC, errno.EACCES), "Refused", "PERMISSION"),
    (Said(45, "authentication failed", RPC), "Refused", "PERMISSION"),
    (Said(29, "operation forbidden for read only access"), "Refused", "PERMISSION"),
    (Said(49, "no storage pool"), "Refused", "PREREQUISITE"),
    (Said(50, "no storage vol"), "Missing", "MISSING"),
    (Said(43, "no network"), "Missing", "NETWORK_MISSING"),
    (
        Said(38, "Cannot get interface MTU on 'br9': No such device", QEMU, errno.ENODEV),
        "Missing",
        "NETWORK_MISSING",
    ),
    (Said(42, "no domain"), "Missing", "MISSING"),
    (Said(90, "volume exists"), "Refused", "PATH_CONFLICT"),
    (Said(9, "domain 'x' already exists"), "Refused", "PATH_CONFLICT"),
    (Said(38, "cannot write to stream", STORAGE, errno.ENOSPC), "NoSpace", "NO_SPACE"),
    (Said(1, "qemu-img: No space left on device"), "NoSpace", "NO_SPACE"),
    (Said(55, "domain is not running"), "Refused", "IN_USE"),
    (Said(67, "unsupported machine"), "Refused", "PREREQUISITE"),
    (Said(92, "XML document failed to validate"), "Refused", "PREREQUISITE"),
    (Said(70, "hook script failed"), "Refused", "IN_USE"),
    (Said(1, "something new"), "DriverError", "FAILED"),
]


@pytest.mark.parametrize(("said", "family", "code"), TABLE, ids=lambda value: str(value)[:40])
def test_each_error_has_a_family_a_code_and_a_next_action(said: Said, family: str, code: str) -> None:
    fault = errors.fault(said, "the image x", "hv1")
    assert (type(fault).__name__, fault.code) == (family, code)
    assert "hv1" in fault.text
    assert fault.action
    assert str(said) not in fault.text


def test_a_busy_pool_is_told_from_a_broken_one() -> None:
    assert errors.busy(Said(1, "internal error: pool 'x' has asynchronous jobs running."))
    assert not errors.busy(Said(1, "internal error: something else"))


def test_a_site_without_the_library_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "libvirt", None)
    with pytest.raises(Refused, match="libvirt-python") as refused:
        connection.connect("qemu:///system", "hv1")
    assert isinstance(refused.value, DriverError)
    assert "docs/drivers/libvirt.md" in refused.value.action
