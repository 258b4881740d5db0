"""A fresh storage pool on a host of the lab: what the driver tests need of a host of the kind libvirt."""

from __future__ import annotations

import secrets
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

from providers_app.drivers import open_driver
from providers_app.drivers.libvirt.connection import library
from tests.drivers.benches import RUNS, Bench, write_sparse
from tests.lab.hosts import Host

NETWORKS = ("dmz", "lan")
_NETWORK = """
    <network>
        <name>{name}</name>
        <forward mode='open'/>
        <bridge name='vbr-{name}'/>
        <dns enable='no'/>
        <ip address='{address}' prefix='32'/>
    </network>
"""  # "open": libvirt runs iptables some dozen times for each start of any other


class LibvirtBench(Bench):
    """One pool in a folder of its own; VMs and volumes of other benches on the host are not seen by it."""

    kind = "libvirt"
    networks = ("br0", *NETWORKS)

    def __init__(self, root: Path, host: Host) -> None:
        self.host = host
        self.pool = f"p{secrets.token_hex(4)}"
        self._libvirt: Any = None
        super().__init__(root)

    @property
    def libvirt(self) -> Any:
        """A connection beside the driver's own; a new one after the host died."""
        import libvirt

        with suppress(libvirt.libvirtError):
            if self._libvirt is not None and self._libvirt.getHostname():
                return self._libvirt
        self._libvirt = library().open(self.host.uri)
        return self._libvirt

    def make(self) -> dict[str, Any]:
        self.folder = self.host.images / self.pool
        self.folder.mkdir()
        self.define_pool()
        for name in NETWORKS:
            self._network(name)
        settings = {
            "transport": "local",
            "socket": self.host.socket,
            "sockets": [str(self.host.base)],
            "pool": self.pool,
            "shutdown_seconds": 0,
        }
        return {**settings, "host_id": open_driver(self.kind, settings).register()}

    def define_pool(self) -> None:
        text = f"<pool type='dir'><name>{self.pool}</name><target><path>{self.inner}</path></target></pool>"
        pool = self.libvirt.storagePoolDefineXML(text)
        pool.create()
        pool.setAutostart(1)

    @property
    def inner(self) -> str:
        """The pool's folder as the host sees it: by the same path, so that tools outside can follow it too."""
        return f"/var/lib/libvirt/images/{self.pool}" if self.host.pool_mib else str(self.folder)

    def _network(self, name: str) -> None:
        import libvirt

        try:
            network = self.libvirt.networkLookupByName(name)
        except libvirt.libvirtError:
            network = self.libvirt.networkDefineXML(
                _NETWORK.format(name=name, address=f"198.51.100.{1 + NETWORKS.index(name)}")
            )
        network.setAutostart(1)
        if not network.isActive():
            network.create()

    def only_network(self, name: str) -> dict[str, Any]:
        for other in set(NETWORKS) - {name}:
            self.libvirt.networkLookupByName(other).destroy()
        return {}

    def add_vm(self, name: str, content: bytes, runs: Sequence[tuple[int, int]] = RUNS) -> str:
        file = f"{name}-disk.raw"
        write_sparse(self.folder / file, content, runs)
        self.define(name, file)
        return file

    def add_packed(self, file: str, content: bytes) -> str:
        """Put a compressed qcow2 image of ``content`` into the pool; return what a definition says of it."""
        plain = self.root / "plain"
        plain.write_bytes(content)
        convert = ["qemu-img", "convert", "-c", "-f", "raw", "-O", "qcow2", plain, self.folder / file]
        subprocess.run(convert, check=True)
        return (
            f"<disk type='file' device='disk'><driver name='qemu' type='qcow2'/>"
            f"<source file='{self.inner}/{file}'/><target dev='vdb' bus='virtio'/></disk>"
        )

    def define(
        self, name: str, file: str, *, extra: str = "", form: str = "raw", edits: Mapping[str, str] = {}
    ) -> None:
        """Define somebody's VM on a file of the pool. ``edits``: what stands in the place of parts of its text."""
        text = (
            f"<domain type='qemu'><name>{name}</name><memory unit='MiB'>2048</memory><vcpu>2</vcpu>"
            "<os><type arch='x86_64' machine='q35'>hvm</type></os><features><acpi/></features><devices>"
            f"<disk type='file' device='disk'><driver name='qemu' type='{form}'/><source file='{self.inner}/{file}'/>"
            "<target dev='vda' bus='virtio'/></disk><interface type='network'><source network='lan'/>"
            f"<model type='e1000'/></interface>{extra}</devices></domain>"
        )
        for part, other in edits.items():
            text = text.replace(part, other)
        self.libvirt.defineXML(text)

    def add_foreign_image(self, name: str) -> None:
        (self.folder / name).write_bytes(b"somebody else's")

    def add_foreign_guest(self, name: str) -> None:
        (self.folder / "theirs.raw").write_bytes(b"somebody else's")
        self.define(name, "theirs.raw")

    def path(self, ref: str) -> Path:
        return self.folder / ref

    def empty(self) -> None:
        (self.folder / ".rasweb-host.json").unlink()

    def litter(self) -> list[str]:
        survey = self.connected().survey()
        known = {disk.ref for vm in (*survey.vms, *survey.guests) for disk in vm.disks}
        for image in survey.images:
            known |= {image.ref, f".{image.name}.rasweb.json"}
        return sorted({path.name for path in self.folder.iterdir()} - known - {".rasweb-host.json"})

    def everything(self) -> Mapping[str, bytes]:
        vms = {f"domain {name}": text.encode() for name, text in self.definitions().items()}
        return {**super().everything(), **vms}

    def definitions(self) -> dict[str, str]:
        """The permanent definitions of all VMs on this pool, by name."""
        found = {domain.name(): domain.XMLDesc(2) for domain in self.libvirt.listAllDomains()}
        ours = f"{self.inner}/", f"pool='{self.pool}"
        return {name: text for name, text in found.items() if any(part in text for part in ours)}

    def metadata_of(self, name: str) -> str:
        return "".join(ET.fromstring(self.definitions()[name]).find("metadata").itertext())  # type: ignore[union-attr]

    def close(self) -> None:
        import libvirt

        super().close()
        for name in self.definitions():
            domain = self.libvirt.lookupByName(name)
            with suppress(libvirt.libvirtError):
                domain.destroy()
            domain.undefineFlags(1 | 2 | 4 | 16)  # with what was saved of it
        pool = self.libvirt.storagePoolLookupByName(self.pool)
        with suppress(libvirt.libvirtError):
            pool.destroy()
        pool.undefine()
        self._libvirt.close()
        shutil.rmtree(self.folder, ignore_errors=True)
