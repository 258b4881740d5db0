"""Virtual hardware: what a host offers, and what of a VM's it lacks."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import pytest

from providers_app.drivers import Definition, load
from providers_app.drivers.libvirt.definition import Hardware
from providers_app.drivers.libvirt.fit import Offer, Way
from tests.drivers.benches import known_bytes
from tests.lab.bench import LibvirtBench

WAY = Way(
    type="kvm",
    arch="x86_64",
    vcpus=16,
    machines=("pc", "pc-i440fx-6.2", "pc-q35-5.10", "pc-q35-6.2", "q35"),
    devices=("disk sata", "disk virtio", "graphics vnc", "video vga"),
    modes=("custom", "host-model", "host-passthrough", "maximum"),
    models=("Nehalem", "qemu64"),
)
OFFER = Offer(8192, (WAY, replace(WAY, type="qemu", modes=("custom", "maximum"))))
FITTING = Hardware(type="kvm", machine="pc-q35-6.2", cpu_mode="custom", cpu_model="Nehalem")


def said(wanted: Hardware, offer: Offer = OFFER, memory: int = 2048, vcpus: int = 2) -> list[str]:
    """What is said of a VM on a host called fra-02."""
    definition = Definition(memory, vcpus, "", wanted.encode())
    found = load("libvirt").misfits(json.dumps(asdict(offer)), definition, "fra-02")
    assert all(each.action for each in found)
    return [each.text for each in found]


@pytest.mark.parametrize(
    "wanted",
    [
        Hardware(),
        FITTING,
        replace(FITTING, machine="q35", bus="sata", cpu_mode="host-passthrough", cpu_model=""),
        replace(FITTING, type="qemu", cpu_mode="host-model", cpu_model=""),
    ],
    ids=["usual", "custom", "passthrough", "emulated"],
)
def test_what_a_host_offers_fits(wanted: Hardware) -> None:
    assert said(wanted) == []


@pytest.mark.parametrize(
    ("wanted", "sentence"),
    [
        (
            replace(FITTING, machine="pc-q35-7.2"),
            "fra-02 has no machine type pc-q35-7.2; the newest of its kind there is pc-q35-6.2.",
        ),
        (replace(FITTING, machine="virt"), "fra-02 has no machine type virt."),
        (
            replace(FITTING, cpu_model="Icelake-Server"),
            "fra-02 can not give a VM the CPU model Icelake-Server.",
        ),
        (
            replace(FITTING, type="qemu", cpu_mode="custom", cpu_model="Nehalem", bus="ide"),
            "fra-02 offers no disks on the bus ide.",
        ),
        (replace(FITTING, arch="aarch64", type="qemu"), "fra-02 runs no aarch64 VMs."),
    ],
    ids=["machine", "other machine", "cpu", "bus", "arch"],
)
def test_what_a_host_lacks_is_named(wanted: Hardware, sentence: str) -> None:
    assert said(wanted) == [sentence]


def test_a_host_without_kvm_a_screen_or_a_mode_says_so() -> None:
    bare = replace(WAY, devices=("disk virtio",), modes=("maximum",))
    assert said(FITTING, Offer(8192, (bare,))) == [
        "fra-02 offers no consoles by VNC.",
        "fra-02 offers no VGA graphics.",
        "fra-02 does not offer the CPU mode custom.",
    ]
    (no_kvm,) = said(FITTING, Offer(8192, (replace(WAY, type="qemu"),)))
    assert no_kvm.startswith("fra-02 has no KVM for x86_64")


def test_a_vm_that_is_too_large_is_named_with_both_sizes() -> None:
    assert said(FITTING, memory=9000, vcpus=17) == [
        "fra-02 has 8192 MiB of memory, the VM 9000 MiB.",
        "fra-02 gives a VM 16 CPUs at most, this one has 17.",
    ]


@pytest.mark.parametrize(
    "offer", ["", "{", "[]", '{"memory_mib": 1}', '{"memory_mib": 1, "ways": [], "more": 1}']
)
def test_a_host_that_did_not_say_what_it_offers_is_not_held_back(offer: str) -> None:
    assert load("libvirt").misfits(offer, Definition(99, 1, "", FITTING.encode()), "fra-02") == ()


def test_a_stored_hardware_that_is_none_is_said() -> None:
    (misfit,) = load("libvirt").misfits(json.dumps(asdict(OFFER)), Definition(1, 1, "", "{}x"), "fra-02")
    assert "stored hardware" in misfit.text


def test_a_real_host_offers_what_its_own_vms_need(bench: LibvirtBench) -> None:
    bench.add_vm("win", known_bytes())
    survey = bench.connected().survey()
    (vm,) = survey.vms
    wanted = Definition(vm.memory_mib, vm.vcpus, vm.network, vm.hardware)
    misfits = load("libvirt").misfits
    assert misfits(survey.hardware, wanted, "fra-02") == ()
    newer = Hardware(type="qemu", machine="pc-q35-99.0").encode()
    (misfit,) = misfits(survey.hardware, replace(wanted, hardware=newer), "fra-02")
    assert misfit.text.startswith(
        "fra-02 has no machine type pc-q35-99.0; the newest of its kind there is pc-q35-"
    )
    assert len(survey.hardware) < 4000
