"""``make lab``: three libvirt hosts with a small source VM, registered in the rasweb whose data folder is set.

Ends the hosts, and takes nothing else away, on Ctrl-C.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from argparse import ArgumentParser
from pathlib import Path

from tests.lab.boot import boot_sector
from tests.lab.hosts import Host, Lab, obstacle

ROOT = Path(__file__).resolve().parents[2]
MIB = 1 << 20
SOURCE_VM = "golden"
DOORS = Path("/run/libvirt")  # below it rasweb allows sockets by default


def main() -> None:
    parser = ArgumentParser(prog="make lab ARGS=...", description=__doc__)
    parser.add_argument("--hosts", type=int, default=3)
    parser.add_argument(
        "--pool-mib", type=int, default=0, help="size of each host's pool; 0 for the disk's own"
    )
    parser.add_argument("--base", default="", help="a short, empty folder for all that belongs to the hosts")
    asked = parser.parse_args()
    if why := obstacle():
        sys.exit(f"{why}.")
    base = Path(asked.base or tempfile.mkdtemp(prefix="lab-", dir="/tmp"))
    with Lab(asked.hosts, base, pool_mib=asked.pool_mib, doors=DOORS / base.name) as lab:
        for host in lab.hosts:
            furnish(host)
            register(host)
        add_source(lab.hosts[0])
        manage("provider", "check", name_of(lab.hosts[0]))
        tell(lab)
        signal.sigwait({signal.SIGINT, signal.SIGTERM})


def furnish(host: Host) -> None:
    """Give a host a pool and a network of the usual names."""
    import libvirt

    connection = libvirt.open(host.uri)
    pool = connection.storagePoolDefineXML(
        "<pool type='dir'><name>images</name><target><path>/var/lib/libvirt/images</path></target></pool>"
    )
    network = connection.networkDefineXML(
        "<network><name>default</name><forward mode='nat'/><bridge name='virbr0'/>"
        "<ip address='192.168.122.1' netmask='255.255.255.0'/></network>"
    )
    for each in (pool, network):
        each.create()
        each.setAutostart(1)
    connection.close()


def add_source(host: Host) -> None:
    """Define a shut-off VM with a disk of 256 MiB, 24 of them data, that boots and says so on its serial line."""
    import libvirt

    disk = host.images / f"{SOURCE_VM}.raw"
    with disk.open("wb") as file:
        file.truncate(256 * MIB)
        file.write(boot_sector("BOOT-OK"))
        for start in range(16, 256, 40):
            file.seek(start * MIB)
            file.write(os.urandom(4 * MIB))
    connection = libvirt.open(host.uri)
    connection.defineXML(
        f"<domain type='qemu'><name>{SOURCE_VM}</name><memory unit='MiB'>64</memory><vcpu>1</vcpu>"
        "<os><type arch='x86_64' machine='q35'>hvm</type></os><features><acpi/></features><devices>"
        "<disk type='file' device='disk'><driver name='qemu' type='raw'/>"
        f"<source file='/var/lib/libvirt/images/{SOURCE_VM}.raw'/><target dev='vda' bus='virtio'/></disk>"
        "<interface type='network'><source network='default'/><model type='virtio'/></interface>"
        "<serial type='pty'/></devices></domain>"
    )
    connection.close()


def register(host: Host) -> None:
    parts = ("transport=local", f"socket={host.socket}", "pool=images")
    manage(
        "provider",
        "add",
        name_of(host),
        "--kind",
        "libvirt",
        *(word for part in parts for word in ("--set", part)),
    )


def manage(*words: str) -> None:
    subprocess.run([sys.executable, str(ROOT / "manage.py"), *words], check=True)


def name_of(host: Host) -> str:
    return f"lab-{host.number}"


def tell(lab: Lab) -> None:
    print(
        f"{len(lab.hosts)} hosts are up and registered; {name_of(lab.hosts[0])} has the source VM {SOURCE_VM}."
    )
    for host in lab.hosts:
        print(f"  {name_of(host)}: virsh -c '{host.uri}'   images in {host.images}")
    print("Ctrl-C ends the hosts.", flush=True)


if __name__ == "__main__":
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    main()
