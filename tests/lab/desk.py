"""A host with two versions of an image, and the guest desk."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from providers_app.drivers import CloneSpec, Definition, Driver
from tests.drivers.benches import GUEST, IMAGE
from tests.drivers.copying import aligned
from tests.lab.bench import LibvirtBench

MIB = 1 << 20
DESK = replace(GUEST, owner="desk")


@pytest.fixture
def host(bench: LibvirtBench) -> Driver:
    """A host with two versions of an image, and a guest of the first one."""
    host = bench.connected()
    for version in (1, 2):
        mark = replace(IMAGE, version=version)
        sink = host.stage(image(version), MIB, mark)
        sink.write(0, aligned(bytes([version]) * MIB))
        sink.flush()
        sink.commit(image(version), mark)
    host.clone(spec(host))
    return host


def image(version: int) -> str:
    return f"win-v{version}-0123456789ab.raw"


def first(host: Driver) -> str:
    (ref,) = [each.ref for each in host.survey().images if each.mark and each.mark.version == 1]
    return ref


def spec(host: Driver, version: int = 1, machine: str = "") -> CloneSpec:
    (ref,) = [each.ref for each in host.survey().images if each.mark and each.mark.version == version]
    hardware = f'{{"machine": "{machine}"}}' if machine else ""
    return CloneSpec("desk", (ref,), ("raw",), True, Definition(32, 1, "", hardware), DESK)


def domain(bench: LibvirtBench) -> Any:
    return bench.libvirt.lookupByName("desk")


def stand_on(base: Path, form: str, overlay: Path) -> None:
    """Make an overlay as anybody with a shell on the host would."""
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-F", form, "-b", base, overlay], check=True)


def remove_first(host: Driver) -> None:
    host.remove(image(1), replace(IMAGE, version=1))
