"""The whole job with the really started product on three libvirt hosts."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.bench import digest
from tests.lab.bench import LibvirtBench
from tests.lab.boot import boot_sector, hear
from tests.lab.site import Site

pytestmark = pytest.mark.product

MIB = 1 << 20
SIZE = 24 * MIB
RUNS = ((0, 4096), (8 * MIB, 5 * MIB), (SIZE - MIB, MIB))
NAMES = ("alpha", "beta", "gamma")


def golden(word: str) -> bytes:
    content = bytearray(SIZE)
    content[:512] = boot_sector(word)
    for start, length in RUNS[1:]:
        content[start : start + length] = os.urandom(length)
    return bytes(content)


@pytest.fixture
def site(benches: list[LibvirtBench], tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path / "data", dict(zip(NAMES, benches, strict=True)))
    try:
        yield site.start()
    finally:
        site.product.close()


def test_templates_guests_and_maintenance_on_three_hosts(site: Site) -> None:
    first, data = golden("VERSION-ONE"), os.urandom(MIB).ljust(4 * MIB, b"\0")
    site.add_source(first, RUNS, data)
    site.create("beta", "gamma")
    site.until_ok()
    for target in site.status()["targets"]:
        assert site.published(target["provider"], 1) == first
        assert site.published(target["provider"], 1, disk=1) == data
        assert [image["digest"] for image in target["images"]] == [digest(first), digest(data)]

    for name in ("alpha", "beta"):
        site.product.order("guest", "create", "win11", "--provider", name, "--count", "2", "--prefix", name)
    site.until(lambda: all(_ready(site, name) for name in ("alpha", "beta")), "ready guests")
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
    site.until(lambda: not site.guests("alpha") + site.guests("beta"), "no guests")
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
    site.add_source(content, RUNS)
    with site.without_power("gamma"):
        site.until_state("gamma", "Not available")
        site.create("beta", "gamma")
        site.until(lambda: site.words("beta")[1] == "OK", "OK on beta")
        assert site.words("gamma")[:2] == ("Not available", "Distributing")
    site.until_ok()
    assert site.published("gamma", 1) == content
    assert "Traceback" not in site.product.output
