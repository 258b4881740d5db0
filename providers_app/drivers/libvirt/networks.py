"""Networks and bridges of a host: those that a VM can really be attached to."""

from __future__ import annotations

from collections.abc import Mapping

from providers_app.drivers import files
from providers_app.drivers.base import Missing

from . import xmltext
from .host import Host

_ACTIVE = 2  # VIR_CONNECT_LIST_NETWORKS_ACTIVE


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
    """Return the interfaces that are there with their kinds; nothing where the host does not tell."""
    import libvirt

    try:
        found = host.connection.listAllInterfaces(0)
        return {str(each.name()): xmltext.parse(str(each.XMLDesc(0))).get("type", "") for each in found}
    except libvirt.libvirtError:
        return {}
