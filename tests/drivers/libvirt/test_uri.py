"""The address of a libvirt host: closed parts, and nothing else gets through."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from providers_app.drivers import Refused
from providers_app.drivers.libvirt import uri

SOCKETS = {"sockets": ["/run/libvirt"]}


def test_a_local_host_is_reached_by_its_socket() -> None:
    built = uri.build({"transport": "local", "socket": "/run/libvirt/libvirt-sock", **SOCKETS})
    assert built == "qemu+unix:///system?socket=/run/libvirt/libvirt-sock"


def test_an_ssh_host_is_reached_by_our_own_command() -> None:
    built = uri.build({"transport": "ssh", "host": "hv1.example.com", "user": "rasweb", "port": 2222})
    assert built == f"qemu+ssh://rasweb@hv1.example.com:2222/system?no_tty=1&command={uri.SSH}"
    assert "StrictHostKeyChecking=yes" in uri.SSH.read_text()
    assert uri.SSH.stat().st_mode & 0o111


@pytest.mark.parametrize(
    ("host", "part"),
    [("10.0.0.1", "10.0.0.1"), ("fe80::1", "[fe80::1]"), ("hv-1.example.com", "hv-1.example.com")],
)
def test_hosts_are_names_or_addresses(host: str, part: str) -> None:
    assert uri.build({"transport": "tls", "host": host}) == f"qemu+tls://{part}/system"


def test_plain_tcp_has_to_be_allowed() -> None:
    settings = {"transport": "tcp", "host": "hv1"}
    with pytest.raises(Refused, match="without encryption") as refused:
        uri.build(settings)
    assert refused.value.code == "PREREQUISITE"
    assert uri.build({**settings, "plain_tcp": True}) == "qemu+tcp://hv1/system"


ODD_HOSTS = ["", None, "-oProxyCommand=x", "a b", "a/b", "a?command=x", "a&b", "a@b", "h" * 300, "a%20b",
             "fe80::1%eth0", "a\n", 7, ["a"]]  # fmt: skip
ODD_SOCKETS = ["relative", "/etc/passwd", "/run/libvirt/../x", "/run/libvirt/a?command=b", "/run/libvirt/a&b",
               "/run/libvirt/" + "x" * 107, 5]  # fmt: skip


@pytest.mark.parametrize("host", ODD_HOSTS)
def test_hosts_that_are_something_else_are_refused(host: Any) -> None:
    for transport in ("ssh", "tls"):
        with pytest.raises(Refused) as refused:
            uri.build({"transport": transport, "host": host})
        assert refused.value.code == "PREREQUISITE"
        assert refused.value.action


@pytest.mark.parametrize(
    "parts",
    [
        {"transport": "qemu+ext"},
        {"transport": None},
        {"transport": "ssh", "host": "a", "user": "-x"},
        {"transport": "ssh", "host": "a", "user": "a@b"},
        {"transport": "ssh", "host": "a", "user": "a&command=/bin/sh"},
        {"transport": "ssh", "host": "a", "port": 0},
        {"transport": "ssh", "host": "a", "port": "22/system?command=x"},
        {"transport": "ssh", "host": "a", "port": True},
    ],
)
def test_a_row_that_was_edited_by_hand_is_refused(parts: dict[str, Any]) -> None:
    with pytest.raises(Refused):
        uri.build(parts)


@pytest.mark.parametrize("path", ODD_SOCKETS)
def test_sockets_outside_the_allowed_folders_are_refused(path: Any) -> None:
    with pytest.raises(Refused):
        uri.build({"transport": "local", "socket": path, **SOCKETS})


def test_a_link_out_of_the_allowed_folders_is_refused(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "link").symlink_to("/run")
    with pytest.raises(Refused, match="outside"):
        uri.build(
            {"transport": "local", "socket": str(tmp_path / "in/link/s"), "sockets": [str(tmp_path / "in")]}
        )


def test_without_allowed_folders_no_socket_is_allowed() -> None:
    with pytest.raises(Refused):
        uri.build({"transport": "local", "socket": "/run/libvirt/libvirt-sock"})
