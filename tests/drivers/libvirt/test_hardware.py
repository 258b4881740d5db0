"""Guests and their virtual hardware: that of their template, and nothing else of a host."""

from __future__ import annotations

import pytest

from providers_app.drivers import CloneSpec, Definition, Refused
from tests.drivers.benches import GUEST, IMAGE, NAME, known_bytes
from tests.drivers.copying import publish
from tests.lab.bench import LibvirtBench


def test_a_guest_gets_the_hardware_of_its_template_and_nothing_else(bench: LibvirtBench) -> None:
    host = bench.connected()
    bench.add_vm("win", known_bytes())
    (source,) = host.survey().vms
    image = publish(host, known_bytes(), NAME, IMAGE)
    definition = Definition(64, 1, "lan", source.hardware)
    host.clone(CloneSpec("desk", (image.ref,), ("raw",), True, definition, GUEST))
    text = bench.definitions()["desk"]
    assert "type='e1000'" in text
    assert "pc-q35-" in text
    assert "<domain type='qemu'" in text
    assert bench.definitions()["win"].split("<uuid>")[1][:36] not in text


@pytest.mark.parametrize(
    "hardware",
    [
        '{"machine": "x y"}',
        '{"emulator": "/bin/sh"}',
        "[]",
        "{",
        '{"bus": "nvme"}',
        '{"buses": ["nvme"]}',
        '{"scsi": "lsisas1068"}',
    ],
)
def test_a_hardware_of_others_is_refused(bench: LibvirtBench, hardware: str) -> None:
    host = bench.connected()
    image = publish(host, known_bytes(), NAME, IMAGE)
    with pytest.raises(Refused) as refused:
        host.clone(CloneSpec("desk", (image.ref,), ("raw",), True, Definition(64, 1, "", hardware), GUEST))
    assert refused.value.code == "PREREQUISITE"
    assert (host.survey().guests, bench.litter()) == ((), [])


def test_a_recreated_guest_keeps_its_uuid_and_its_network_address(bench: LibvirtBench) -> None:
    host = bench.connected()
    image = publish(host, known_bytes(), NAME, IMAGE)
    spec = CloneSpec("desk", (image.ref,), ("raw",), True, Definition(64, 1, "lan"), GUEST)
    host.clone(spec)
    before = bench.definitions()["desk"]
    host.recreate(spec)
    after = bench.definitions()["desk"]
    for tag in ("<uuid>", "<mac address="):
        assert before.split(tag)[1][:36] == after.split(tag)[1][:36]
    assert before != after


def test_a_guest_that_was_given_uefi_goes_with_its_variables(bench: LibvirtBench) -> None:
    host = bench.connected()
    image = publish(host, known_bytes(), NAME, IMAGE)
    host.clone(CloneSpec("desk", (image.ref,), ("raw",), True, Definition(64, 1), GUEST))
    variables = bench.path("desk_VARS.fd")
    variables.write_bytes(b"variables")
    loader = "<loader readonly='yes' type='pflash'>/usr/share/OVMF/OVMF_CODE.fd</loader>"
    boot = f"{loader}<nvram>{bench.inner}/{variables.name}</nvram></os>"
    bench.libvirt.defineXML(bench.definitions()["desk"].replace("</os>", boot))
    assert [guest.name for guest in host.survey().guests] == ["desk"]
    host.delete_guest("desk", GUEST)
    assert not variables.exists()
    assert (host.survey().guests, bench.litter()) == ((), [])


def test_a_host_with_a_switch_of_its_own_attaches_all_guests_to_it(bench: LibvirtBench) -> None:
    host = bench.connected(network="br0")
    assert host.survey().networks is None
    image = publish(host, known_bytes(), NAME, IMAGE)
    host.clone(CloneSpec("desk", (image.ref,), ("raw",), True, Definition(64, 1, "elsewhere"), GUEST))
    assert "<source bridge='br0'/>" in bench.definitions()["desk"]
