"""The whole job with the really started product on three libvirt hosts."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.faults.bench import SHORT, digest
from tests.lab.bench import LibvirtBench
from tests.lab.boot import boot_sector, hear
from tests.lab.hosts import Lab
from tests.product import Product, wait_for

pytestmark = pytest.mark.product

MIB = 1 << 20
SIZE = 24 * MIB
RUNS = ((0, 4096), (8 * MIB, 5 * MIB), (SIZE - MIB, MIB))
NAMES = ("alpha", "beta", "gamma")
SETTLED_SECONDS = 180.0
_HISTORY = """
from templates_app.models import Event
for event in Event.objects.filter(to_phase="installed", note__startswith="Version {version}"):
    print(f"{{event.provider}}: {{event.note}}")
"""


def golden(word: str) -> bytes:
    content = bytearray(SIZE)
    content[:512] = boot_sector(word)
    for start, length in RUNS[1:]:
        content[start : start + length] = os.urandom(length)
    return bytes(content)


@pytest.fixture
def product(lab: Lab, tmp_path: Path) -> Iterator[Product]:
    started = Product(tmp_path / "data", {**SHORT, "RASWEB_ALLOWED_SOCKETS": str(lab.base)})
    yield started
    started.close()


@pytest.fixture
def site(product: Product, benches: list[LibvirtBench]) -> Site:
    return Site(product, dict(zip(NAMES, benches, strict=True)))


class Site:
    """Three hosts, registered in a started product."""

    def __init__(self, product: Product, benches: dict[str, LibvirtBench]) -> None:
        self.product, self.benches = product, benches
        product.start()
        for name, bench in benches.items():
            parts = {
                "transport": "local",
                "socket": bench.host.socket,
                "pool": bench.pool,
                "shutdown_seconds": 0,
            }
            words = [word for part, value in parts.items() for word in ("--set", f"{part}={value}")]
            product.order("provider", "add", name, "--kind", "libvirt", *words)

    def run(self, *words: str) -> Any:
        return json.loads(self.product.order(*words, "--json").stdout)

    def status(self) -> dict[str, Any]:
        return dict(self.run("template", "status", "win11"))

    def until_ok(self) -> None:
        wait_for(lambda: self.status()["distribution"] == "OK", SETTLED_SECONDS, f"OK, {self.status()}")

    def add_source(self, content: bytes, data: bytes = b"") -> None:
        """A VM with a raw disk, and with ``data`` on a qcow2 disk beside it."""
        bench = self.benches["alpha"]
        file = bench.add_vm("golden", content, RUNS)
        if data:
            bench.libvirt.lookupByName("golden").undefine()
            bench.define("golden", file, extra=bench.add_packed("golden-data.qcow2", data))
        self.product.order("provider", "check", "alpha")

    def create(self, *targets: str) -> None:
        words = [word for name in targets for word in ("--target", name)]
        order = ("template", "create", "win11", "--source", "alpha:golden", "--clone", "linked", *words)
        self.product.order(*order, "--wait")

    def published(self, name: str, version: int, disk: int = 0) -> bytes:
        """The bytes of a published image, read past libvirt and past rasweb."""
        bench = self.benches[name]
        (image,) = [
            image
            for image in bench.connected().survey().images
            if image.mark and (image.mark.version, image.mark.disk) == (version, disk)
        ]
        return bench.path(image.ref).read_bytes()

    def installed(self, version: int) -> dict[str, str]:
        """The history's word on how a version came to each provider."""
        told = self.product.run("shell", "-v0", "-c", _HISTORY.format(version=version)).stdout
        return dict(line.split(": ", 1) for line in told.splitlines() if line)

    def guests(self, name: str) -> list[str]:
        return [guest["name"] for guest in self.run("guest", "list", "--provider", name)]


def test_templates_guests_and_maintenance_on_three_hosts(site: Site) -> None:
    first, data = golden("VERSION-ONE"), os.urandom(MIB).ljust(4 * MIB, b"\0")
    site.add_source(first, data)
    site.create("beta", "gamma")
    site.until_ok()
    for target in site.status()["targets"]:
        assert site.published(target["provider"], 1) == first
        assert site.published(target["provider"], 1, disk=1) == data
        assert [image["digest"] for image in target["images"]] == [digest(first), digest(data)]

    for name in ("alpha", "beta"):
        site.product.order("guest", "create", "win11", "--provider", name, "--count", "2", "--prefix", name)
    wait_for(lambda: all(_ready(site, name) for name in ("alpha", "beta")), SETTLED_SECONDS, "ready guests")
    for name in ("alpha", "beta"):
        bench = site.benches[name]
        bench.libvirt.lookupByName(f"{name}-001").create()
        assert hear(bench.libvirt, f"{name}-001", "VERSION-ONE")

    site.product.order("template", "maintenance", "win11", "enter", "--wait")
    alpha = site.benches["alpha"]
    (copy,) = [vm for vm in alpha.connected().survey().vms if vm.mark]
    alpha.libvirt.lookupByName(copy.name).create()
    leave = ("template", "maintenance", "win11", "leave", "--new-version", "--wait")
    site.product.order("provider", "check", "alpha")
    refused = site.product.order(*leave, "--json", check=False)
    assert json.loads(refused.stdout)["error"]["code"] == "VM_RUNNING"
    alpha.libvirt.lookupByName(copy.name).destroy()
    with alpha.path(copy.disks[0].ref).open("r+b") as disk:
        disk.write(boot_sector("VERSION-TWO"))
    site.product.order(*leave)
    site.until_ok()
    second = boot_sector("VERSION-TWO") + first[512:]
    assert [site.published(name, 2) for name in NAMES] == [second] * 3
    assert [site.published(name, 2, disk=1) for name in NAMES] == [data] * 3
    assert hear(site.benches["beta"].libvirt, "beta-001", "VERSION-ONE")
    came = site.installed(2)
    assert "copied by the host itself, 0 B (0 bytes) sent" in came["alpha"]
    assert {came[name] for name in ("beta", "gamma")} == {
        "Version 2: 64 KiB (65536 bytes) sent, built on version 1."
    }

    site.product.order("template", "recreate", "win11", "--wait")
    for name in ("alpha", "beta"):
        assert hear(site.benches[name].libvirt, f"{name}-001", "VERSION-TWO")
    assert all(row["ok"] for row in site.run("template", "verify", "win11"))

    site.product.order("guest", "delete", *site.guests("alpha"), *site.guests("beta"))
    wait_for(lambda: not site.guests("alpha") + site.guests("beta"), SETTLED_SECONDS, "no guests")
    site.product.order("template", "remove-provider", "win11", "beta", "gamma", "--wait")
    for name in ("beta", "gamma"):
        assert set(os.listdir(site.benches[name].folder)) == {".rasweb-host.json"}
    assert alpha.path("golden-disk.raw").read_bytes() == first
    assert "Traceback" not in site.product.output


def _ready(site: Site, name: str) -> bool:
    rows = site.run("guest", "list", "--provider", name)
    return len(rows) == 2 and all("eady" in json.dumps(row) for row in rows)


def test_a_host_that_lost_its_power_gets_its_image_when_it_is_back(site: Site) -> None:
    content = golden("VERSION-ONE")
    site.add_source(content)
    gamma = site.benches["gamma"]
    gamma.host.power_cut()
    try:
        wait_for(lambda: _silent(site, "gamma"), SETTLED_SECONDS, "gamma's silence")
        site.product.order(
            "template", "create", "win11", "--source", "alpha:golden", "--target", "beta", "--target", "gamma"
        )
        wait_for(lambda: _words(site)["beta"] == "OK", SETTLED_SECONDS, "beta")
        assert _words(site)["gamma"] == "Distributing"
    finally:
        gamma.host.boot()
    site.until_ok()
    assert site.published("gamma", 1) == content
    assert "Traceback" not in site.product.output


def _words(site: Site) -> dict[str, str]:
    return {target["provider"]: target["progress"] for target in site.status()["targets"]}


def _silent(site: Site, name: str) -> bool:
    return any(row["name"] == name and row["state"] != "Ready" for row in site.run("provider", "list"))
