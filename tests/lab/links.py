"""Networks between this machine and hosts of the lab: a link of its own for each, as slow as wanted. Linux and root."""

from __future__ import annotations

import ctypes
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from tests.lab.hosts import Host

_NEWNET = 0x40000000
_SETTINGS = ("listen_tcp = 1", 'auth_tcp = "none"')
_BURST_BYTES = 256 << 10  # of the largest packets that Linux hands to a card at once, some


@contextmanager
def linked(hosts: Sequence[Host], bits: int) -> Iterator[list[str]]:
    """Have this thread, and what it starts meanwhile, in a network with a link to each host; yield their addresses.

    Each takes ``bits`` a second in each direction, and libvirt answers there without encryption. The machine's own
    network is not touched, and nothing of it is seen from there.
    """
    with open("/proc/thread-self/ns/net") as before:
        _do(ctypes.CDLL(None, use_errno=True).unshare(_NEWNET), "unshare")
        try:
            yield [_link(host, bits) for host in hosts]
        finally:
            _do(ctypes.CDLL(None, use_errno=True).setns(before.fileno(), _NEWNET), "setns")
            for host in hosts:
                host.configure()


def enter_network(pid: int) -> None:
    """Move this thread, and only it, into the network of a process."""
    with open(f"/proc/{pid}/ns/net") as there:
        _do(ctypes.CDLL(None, use_errno=True).setns(there.fileno(), _NEWNET), "setns")


def _link(host: Host, bits: int) -> str:
    near, far = f"198.18.{host.number}.1", f"198.18.{host.number}.2"  # addresses for benchmarks, RFC 2544
    first, name = host.first(), f"h{host.number}"
    _run("ip", "link", "add", name, "type", "veth", "peer", "name", "uplink", "netns", str(first))
    inside = ("nsenter", f"--net=/proc/{first}/ns/net")
    for words, card, address in (((), name, near), (inside, "uplink", far)):
        _run(*words, "ip", "address", "add", f"{address}/30", "dev", card)
        _run(*words, "ip", "link", "set", card, "up")
        limit = ("tbf", "rate", f"{bits}bit", "burst", str(_BURST_BYTES), "latency", "50ms")
        _run(*words, "tc", "qdisc", "add", "dev", card, "root", *limit)
    host.configure(*_SETTINGS, f'listen_addr = "{far}"')
    return far


def _run(*command: str) -> None:
    subprocess.run(command, check=True)


def _do(answer: int, what: str) -> None:
    if answer:
        raise OSError(ctypes.get_errno(), what)
