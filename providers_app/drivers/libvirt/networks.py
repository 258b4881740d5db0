"""Networks and bridges of a host: those that a VM can really be attached to."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any
from xml.etree.ElementTree import Element

from providers_app.drivers import files
from providers_app.drivers.errors import Missing

from . import xmltext
from .host import Host

_ACTIVE = 2  # VIR_CONNECT_LIST_NETWORKS_ACTIVE
_NET_DEVICES = 16  # VIR_CONNECT_LIST_NODE_DEVICES_CAP_NET
_WITHOUT_HARDWARE = "/sys/devices/virtual/"
_NO_BRIDGES = ("lo", "vnet", "macvtap")  # the latter are libvirt's own names for the other ends of VMs' cards


def usable(host: Host) -> tuple[str, ...]:
    """Return the names of active networks whose bridge is there, and of bridges that belong to none."""
    there, networks = _interfaces(host), _networks(host)
    names = {name for name, bridge in networks.items() if not bridge or not there or bridge in there}
    own = {name for name, kind in there.items() if kind == "bridge"} - set(networks.values())
    return tuple(sorted(name for name in names | own if name == files.shown(name)))


def check(host: Host, wanted: str) -> None:
    """Raise NETWORK_MISSING unless a VM can be attached to its network, or to the one set for this host."""
    name = host.network or wanted
    if name and name not in usable(host):
        raise Missing(
            f"The host {host.where} has no network or bridge {files.shown(name)}, or it is not active.",
            code="NETWORK_MISSING",
            action="Create and start it there, or choose another.",
        )


def is_bridge(host: Host, name: str) -> bool:
    return name not in _networks(host)


def _networks(host: Host) -> Mapping[str, str]:
    """Return the active networks, each with its bridge."""
    with host.errors("its networks"):
        found = {
            str(network.name()): xmltext.parse(str(network.XMLDesc(0))).find("bridge")
            for network in host.connection.listAllNetworks(_ACTIVE)
        }
    return {name: bridge.get("name", "") if bridge is not None else "" for name, bridge in found.items()}


def _interfaces(host: Host) -> Mapping[str, str]:
    """Return the interfaces that are there with their kinds; nothing where the host does not tell.

    A host without libvirt's interface driver is asked for its devices. Those do not say what is a bridge, only what has
    no hardware.
    """
    with host.errors("its networks"):
        told = _told(host, lambda: host.connection.listAllInterfaces(0))
        if told is not None:
            return {each.get("name", ""): each.get("type", "") for each in told}
        devices = _told(host, lambda: host.connection.listAllDevices(_NET_DEVICES)) or ()
    found = {each.findtext("capability/interface") or "": each.findtext("path") or "" for each in devices}
    return {
        name: "bridge" if path.startswith(_WITHOUT_HARDWARE) else "ethernet"
        for name, path in found.items()
        if not name.startswith(_NO_BRIDGES)
    }


def _told(host: Host, ask: Callable[[], Sequence[Any]]) -> list[Element] | None:
    """Describe all that is listed and does not vanish meanwhile; None where it can not be listed."""
    import libvirt

    described = []
    try:
        listed = ask()
    except libvirt.libvirtError:
        if not host.connection.isAlive():
            raise
        return None
    for each in listed:
        try:
            described.append(xmltext.parse(str(each.XMLDesc(0))))
        except libvirt.libvirtError:
            if not host.connection.isAlive():
                raise
    return described
