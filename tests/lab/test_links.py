"""Links to hosts of the lab, as the benchmarks use them."""

from __future__ import annotations

import socket
from contextlib import closing

from providers_app.drivers.libvirt.connection import connect
from tests.lab.hosts import Lab
from tests.lab.links import linked


def test_a_link_leads_to_its_host_and_leaves_the_machines_network_alone(lab: Lab) -> None:
    before = socket.if_nameindex()
    with linked(lab.hosts[:1], 10**9) as (address,):
        assert [name for _, name in socket.if_nameindex()] == ["lo", "h1"]
        with closing(connect(f"qemu+tcp://{address}/system", "the host")) as host:
            assert host.getHostname() == "h1"
    assert socket.if_nameindex() == before
    assert lab.hosts[0].answers()
