"""Templates with several disks: one transaction, whatever their formats."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from providers_app.drivers import open_driver
from providers_app.models import Provider
from templates_app import distribution, guests, maintenance, recreation, verification
from templates_app.creation import NewTemplate, create
from templates_app.models import Template
from templates_app.models.template import CloneMethod
from templates_app.status import template_status
from tests.templates_app.conftest import BY, OK, Drain, Hosts, target_on, words

MIB = 1 << 20


@pytest.fixture
def mixed(hosts: Hosts, three: list[Provider]) -> tuple[bytes, bytes]:
    """A source VM with a raw disk and a qcow2 disk; the bytes of their files."""
    [system] = hosts.vm(three[0])
    plain, packed = hosts.root / "plain", hosts.path(three[0]) / "vms/golden/disk1.qcow2"
    plain.write_bytes(b"data".ljust(5000, b"!").ljust(MIB, b"\0"))
    subprocess.run(["qemu-img", "convert", "-O", "qcow2", plain, packed], check=True)
    hosts.check(three[0])
    return system, packed.read_bytes()


def images(hosts: Hosts, provider: Provider, version: int) -> list[tuple[str, bytes]]:
    """Format and content of a version's images, in disk order."""
    found = sorted(hosts.images(provider).items())
    return [(name.rpartition(".")[2], content) for name, content in found if f"-v{version}-" in name]


@pytest.mark.parametrize("method", CloneMethod.values)
def test_disks_of_several_formats_go_through_everything(
    hosts: Hosts, three: list[Provider], mixed: tuple[bytes, bytes], drain: Drain, method: str
) -> None:
    source, left, _ = three
    template = create(NewTemplate("win11", source, "golden", method, targets=[left]), BY)
    drain()
    assert words(template) == {"source": OK, "left": OK}
    first = list(zip(("raw", "qcow2"), mixed, strict=True))
    assert images(hosts, source, 1) == images(hosts, left, 1) == first
    guests.create(template, left, 1, BY)
    maintenance.enter(template, BY)
    drain()

    copy = template_status(Template.objects.get(pk=template.pk))["working_copy"]
    assert copy is not None
    write = ["qemu-io", "-f", "qcow2", "-c", "write -P 9 100k 4k", copy["disks"][1]]
    subprocess.run(write, check=True, capture_output=True)
    changed = Path(copy["disks"][1]).read_bytes()
    maintenance.leave(Template.objects.get(pk=template.pk), maintenance.NEW_VERSION, BY)
    drain()
    assert words(template) == {"source": OK, "left": OK}
    second = [("raw", mixed[0]), ("qcow2", changed)]
    assert images(hosts, source, 2) == images(hosts, left, 2) == second

    recreation.begin(Template.objects.get(pk=template.pk), BY)
    drain()
    shown = ["raw", "qcow2"] if method == CloneMethod.FULL else ["qcow2", "qcow2"]
    assert guest_formats(hosts, left) == shown
    assert guest_sees(hosts, left, images(hosts, left, 2), hosts.root)
    for verdict in verification.verify(Template.objects.get(pk=template.pk)):
        assert verdict["ok"], verdict

    for guest in template.guests.all():
        guests.delete(guest, BY)
    drain()
    distribution.remove_providers(Template.objects.get(pk=template.pk), [left], BY)
    drain()
    assert (hosts.images(left), hosts.hidden(left)) == ({}, [])


def guest_formats(hosts: Hosts, provider: Provider) -> list[str]:
    [known] = (hosts.path(provider) / "guests").glob("*/vm.json")
    return [disk["format"] for disk in json.loads(known.read_text())["disks"]]


def guest_sees(hosts: Hosts, provider: Provider, expected: list[tuple[str, bytes]], room: Path) -> bool:
    """Compare what a guest's disks hold with what the images hold, by QEMU's own tool."""
    [folder] = (hosts.path(provider) / "guests").iterdir()
    for disk, (form, content) in zip(sorted(folder.glob("disk*")), expected, strict=True):
        (room / "expected").write_bytes(content)
        own = disk.suffix.removeprefix(".")
        compared = ["qemu-img", "compare", "-q", "-f", own, "-F", form, disk, room / "expected"]
        if subprocess.run(compared, check=False).returncode:
            return False
    return True


def test_where_one_disk_finds_no_room_none_is_published(
    hosts: Hosts, three: list[Provider], drain: Drain
) -> None:
    hosts.vm(three[0], disks=2)
    disk = hosts.path(three[0]) / "vms/golden/disk1.raw"
    disk.write_bytes(b"large" * MIB)
    hosts.check(three[0])
    small = hosts.add("small", kind="simulator")
    faults = hosts.path(small) / "faults"
    faults.write_text(f"no_space={2 * MIB}")
    template = create(NewTemplate("win11", three[0], "golden", targets=[three[1], small]), BY)
    drain()
    target = target_on(template, small)
    assert (words(template)["left"], target.error_code) == (OK, "NO_SPACE")
    index = json.loads((hosts.path(small) / "simulator.json").read_text())
    assert (index["images"], index["staged"], target.images.count()) == ([], [], 0)
    faults.write_text("")
    distribution.retry(target, BY)
    drain()
    assert words(template)["small"] == OK
    with open_driver(small.kind, small.address().settings) as host:
        assert len(host.survey().images) == 2
