"""The networks and bridges of a host, while interfaces come and go and where it does not tell of them."""

from __future__ import annotations

import subprocess
from typing import Any

import pytest

from providers_app.drivers import Unreachable
from tests.lab.bench import LibvirtBench

libvirt = pytest.importorskip("libvirt")


def ip(bench: LibvirtBench, *words: str) -> None:
    inside = f"--net=/proc/{bench.host.first()}/ns/net"
    subprocess.run(["nsenter", inside, "ip", "link", *words], check=True)


def test_an_interface_that_goes_while_they_are_listed_hides_no_other(
    bench: LibvirtBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = bench.connected(network="br0")
    ip(bench, "add", "br7", "type", "bridge")
    describe, asked = libvirt.virInterface.XMLDesc, []

    def and_meanwhile(interface: Any, flags: int = 0) -> str:
        if not asked:
            ip(bench, "delete", "br7")
        asked.append(interface.name())
        return str(describe(interface, flags))

    monkeypatch.setattr(libvirt.virInterface, "XMLDesc", and_meanwhile)
    assert host.survey().networks is None
    assert "br7" in asked
    assert bench.connected().survey().networks == bench.networks


class Device:
    def __init__(self, name: str, path: str) -> None:
        self._text = (
            f"<device><path>{path}/net/{name}</path><capability type='net'><interface>{name}</interface>"
            "</capability></device>"
        )

    def XMLDesc(self, flags: int) -> str:
        if "gone" in self._text:
            raise libvirt.libvirtError("no node device")
        return self._text


VIRTUAL = "/sys/devices/virtual"
DEVICES = [
    Device("lo", VIRTUAL),
    Device("br0", VIRTUAL),
    Device("vbr-lan", VIRTUAL),
    Device("vnet0", VIRTUAL),
    Device("gone0", VIRTUAL),
    Device("eth0", "/sys/devices/pci0000:00/0000:00:02.0"),
]


@pytest.mark.parametrize(
    ("devices", "networks"),
    [(DEVICES, ("br0", "lan")), (DEVICES[:1], ("dmz", "lan")), (None, ("dmz", "lan"))],
    ids=["devices", "nothing but lo", "nothing"],
)
def test_a_host_without_the_interface_driver_is_asked_for_its_devices(
    bench: LibvirtBench,
    monkeypatch: pytest.MonkeyPatch,
    devices: list[Device] | None,
    networks: tuple[str, ...],
) -> None:
    def listed(*_: Any) -> list[Device]:
        if devices is None:
            raise libvirt.libvirtError("not supported")
        return devices

    def unsupported(*_: Any) -> None:
        raise libvirt.libvirtError("not supported")

    monkeypatch.setattr(libvirt.virConnect, "listAllInterfaces", unsupported)
    monkeypatch.setattr(libvirt.virConnect, "listAllDevices", listed)
    assert bench.connected().survey().networks == networks


def test_a_host_that_is_lost_while_it_lists_them_is_not_one_without_networks(
    bench: LibvirtBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    host, ask = bench.connected(network="br0"), libvirt.virConnect.listAllInterfaces

    def and_meanwhile(*args: Any) -> Any:
        bench.host.kill_daemon()
        return ask(*args)

    monkeypatch.setattr(libvirt.virConnect, "listAllInterfaces", and_meanwhile)
    try:
        with pytest.raises(Unreachable):
            host.survey()
    finally:
        bench.host.wait()
