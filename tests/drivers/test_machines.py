"""The contract, for every kind: guests and working copies."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from providers_app.drivers import VM, Can, CloneSpec, Definition, Driver, Image, Mark, Missing, Refused
from tests.drivers.benches import GUEST, IMAGE, NAME, SIZE, Bench, known_bytes, write_sparse
from tests.drivers.copying import publish, read_all

COPY = Mark("here", "working-copy", "template-1")
OTHERS = replace(GUEST, owner="guest-2")


def flat(path: Path, form: str, tmp_path: Path) -> bytes:
    """Return what a guest sees of a disk, as QEMU's own tool reads it."""
    out = tmp_path / "flat.raw"
    subprocess.run(["qemu-img", "convert", "-U", "-f", form, "-O", "raw", str(path), str(out)], check=True)
    return out.read_bytes()


@pytest.fixture
def second(host: Driver, image: Image) -> Image:
    """The next version of the image."""
    return publish(host, known_bytes(2), "win11-v2-ba9876543210.raw", replace(IMAGE, version=2))


@pytest.fixture(params=["full", "linked"])
def either(request: pytest.FixtureRequest, host: Driver, spec: CloneSpec) -> CloneSpec:
    """A full and a linked clone; both work where the kind says so."""
    linked = request.param == "linked"
    assert (Can.LINKED_CLONE if linked else Can.FULL_CLONE) in host.survey().can
    return replace(spec, linked=linked)


def test_a_guest_has_the_bytes_of_the_image(
    bench: Bench, host: Driver, either: CloneSpec, tmp_path: Path
) -> None:
    vm = host.clone(either)
    (disk,) = vm.disks
    assert (vm.name, vm.memory_mib, vm.vcpus, vm.network) == ("desk 1", 2048, 2, "lan")
    assert (vm.mark, vm.power, vm.problem) == (GUEST, "off", "")
    assert disk.format == ("qcow2" if either.linked else "raw")
    assert disk.allocated < SIZE // 2
    seen = flat(bench.path(disk.ref), disk.format, tmp_path)
    assert (seen[:SIZE], disk.virtual_size >= SIZE) == (known_bytes(), True)
    assert host.survey().guests == (vm,)
    assert bench.litter() == []


def test_a_guest_that_is_there_is_not_made_again(bench: Bench, host: Driver, either: CloneSpec) -> None:
    vm = host.clone(either)
    before = bench.everything()
    assert host.clone(either) == vm
    assert bench.everything() == before


def test_a_guest_of_another_version_is_not_taken_for_this_one(
    host: Driver, spec: CloneSpec, second: Image
) -> None:
    vm = host.clone(spec)
    with pytest.raises(Refused, match="another version") as refused:
        host.clone(replace(spec, images=(second.ref,)))
    assert refused.value.code == "PATH_CONFLICT"
    assert host.survey().guests == (vm,)
    new = host.recreate(replace(spec, images=(second.ref,)))
    assert host.clone(replace(spec, images=(second.ref,))) == new


def test_a_guest_may_have_several_disks(bench: Bench, host: Driver, spec: CloneSpec, second: Image) -> None:
    vm = host.clone(replace(spec, images=(*spec.images, second.ref), formats=("raw", "raw")))
    assert [bench.path(disk.ref).read_bytes() for disk in vm.disks] == [known_bytes(), known_bytes(2)]


def test_an_image_is_in_use_while_a_linked_clone_stands_on_it(host: Driver, spec: CloneSpec) -> None:
    host.clone(replace(spec, linked=True))
    for force in (False, True):
        with pytest.raises(Refused, match="desk 1") as refused:
            host.remove(NAME, IMAGE, force=force)
        assert refused.value.code == "IN_USE"
    host.delete_guest("desk 1", GUEST)
    host.remove(NAME, IMAGE)


def test_an_image_is_not_in_use_by_full_clones(bench: Bench, host: Driver, spec: CloneSpec) -> None:
    vm = host.clone(spec)
    host.remove(NAME, IMAGE)
    assert bench.path(vm.disks[0].ref).read_bytes() == known_bytes()


def test_a_recreated_guest_has_new_disks_and_its_old_name(
    bench: Bench, host: Driver, either: CloneSpec, second: Image, tmp_path: Path
) -> None:
    old = host.clone(either)
    bench.path(old.disks[0].ref).open("r+b").close()
    new = host.recreate(replace(either, images=(second.ref,), definition=Definition(4096, 4, "dmz")))
    assert (new.name, new.memory_mib, new.vcpus, new.network) == ("desk 1", 4096, 4, "dmz")
    (disk,) = new.disks
    assert flat(bench.path(disk.ref), disk.format, tmp_path)[:SIZE] == known_bytes(2)
    assert host.survey().guests == (new,)
    assert bench.litter() == []
    host.remove(NAME, IMAGE)


def test_a_guest_can_be_recreated_from_the_same_image(bench: Bench, host: Driver, spec: CloneSpec) -> None:
    path = bench.path(host.clone(spec).disks[0].ref)
    with path.open("r+b") as file:
        file.write(b"used by somebody")
    (disk,) = host.recreate(spec).disks
    assert bench.path(disk.ref).read_bytes() == known_bytes()


def test_a_guest_that_is_gone_is_made(host: Driver, spec: CloneSpec) -> None:
    vm = host.recreate(spec)
    assert host.survey().guests == (vm,)


def test_a_deleted_guest_is_gone_and_may_be_deleted_again(
    bench: Bench, host: Driver, either: CloneSpec
) -> None:
    before = bench.everything().keys()
    host.clone(either)
    host.delete_guest("desk 1", GUEST)
    host.delete_guest("desk 1", GUEST)
    assert (host.survey().guests, bench.litter()) == ((), [])
    assert bench.everything().keys() == before


Call = Callable[[Driver, CloneSpec], object]
GUEST_CALLS: dict[str, tuple[Call, str]] = {
    "clone": (lambda host, spec: host.clone(spec), "PATH_CONFLICT"),
    "recreate": (lambda host, spec: host.recreate(spec), "PATH_CONFLICT"),
    "delete": (lambda host, spec: host.delete_guest(spec.name, spec.mark), "NOT_OURS"),
}
"""What each call says of a VM that is somebody else's."""


@pytest.mark.parametrize(("call", "code"), GUEST_CALLS.values(), ids=GUEST_CALLS.keys())
def test_a_foreign_vm_of_our_name_is_left_alone(
    bench: Bench, host: Driver, spec: CloneSpec, call: Call, code: str
) -> None:
    bench.add_foreign_guest("desk 1")
    before = bench.everything()
    with pytest.raises(Refused) as refused:
        call(host, spec)
    assert refused.value.code == code
    assert bench.everything() == before


@pytest.mark.parametrize(("call", "code"), GUEST_CALLS.values(), ids=GUEST_CALLS.keys())
def test_a_guest_of_another_owner_is_left_alone(
    bench: Bench, host: Driver, spec: CloneSpec, call: Call, code: str
) -> None:
    host.clone(spec)
    before = bench.everything()
    with pytest.raises(Refused) as refused:
        call(host, replace(spec, mark=OTHERS))
    assert refused.value.code == code
    assert bench.everything() == before


def test_an_error_before_the_swap_leaves_the_guest_as_it_was(
    bench: Bench, host: Driver, spec: CloneSpec
) -> None:
    vm = host.clone(spec)
    with pytest.raises(Missing) as missing:
        host.recreate(replace(spec, images=(*spec.images, "images/gone.raw"), formats=("raw", "raw")))
    assert missing.value.code == "CONTENT_LOST"
    assert host.survey().guests == (vm,)
    assert bench.path(vm.disks[0].ref).read_bytes() == known_bytes()
    host.clone(spec)
    assert bench.litter() == []


def test_a_changed_image_is_not_cloned(bench: Bench, host: Driver, either: CloneSpec, image: Image) -> None:
    write_sparse(bench.path(image.ref), known_bytes(3))
    with pytest.raises(Refused) as refused:
        host.clone(either)
    assert refused.value.code == "CONTENT_CHANGED"
    assert host.survey().guests == ()


@pytest.mark.parametrize(
    "ref", ["", "nothing", "images/none", "vms/x/disk0.raw", "images/../vms", "/etc/passwd"]
)
def test_only_images_that_are_there_are_cloned(host: Driver, spec: CloneSpec, ref: str) -> None:
    with pytest.raises((Missing, Refused)) as fault:
        host.clone(replace(spec, images=(ref,)))
    assert fault.value.code in ("CONTENT_LOST", "PREREQUISITE")
    assert host.survey().guests == ()


def test_an_image_is_cloned_as_what_it_is(host: Driver, either: CloneSpec) -> None:
    with pytest.raises(Refused, match="does not begin like one"):
        host.clone(replace(either, formats=("qcow2",)))
    assert host.survey().guests == ()


def test_a_network_that_the_host_has_not_is_missing(bench: Bench, spec: CloneSpec) -> None:
    host = bench.connected(**bench.only_network("dmz"))
    for verb in (host.clone, host.recreate, host.make_working_copy):
        with pytest.raises(Missing) as missing:
            verb(spec)
        assert missing.value.code == "NETWORK_MISSING"
    host.clone(replace(spec, definition=Definition(network="dmz")))


def working_copy_of(host: Driver, spec: CloneSpec) -> VM:
    return host.make_working_copy(spec)


@pytest.mark.parametrize("name", ["", ".x", "../x", "a/b", "-x", "x" * 200, "a\nb", "ö"])
def test_names_that_are_not_safe_are_refused(bench: Bench, host: Driver, spec: CloneSpec, name: str) -> None:
    before = bench.everything()
    for call in (*(call for call, _ in GUEST_CALLS.values()), working_copy_of):
        with pytest.raises(Refused) as refused:
            call(host, replace(spec, name=name))
        assert refused.value.code == "PREREQUISITE"
    assert bench.everything() == before


def working_copy(host: Driver, spec: CloneSpec) -> VM:
    return host.make_working_copy(replace(spec, name="win11 maintenance", mark=COPY))


def test_a_working_copy_is_a_source_vm_of_full_copies(bench: Bench, host: Driver, spec: CloneSpec) -> None:
    vm = working_copy(host, spec)
    assert working_copy(host, spec) == vm
    assert host.survey().vms == (vm,)
    assert (vm.mark, vm.problem, vm.memory_mib, [disk.format for disk in vm.disks]) == (
        COPY,
        "",
        2048,
        ["raw"],
    )
    source = host.open_source(vm.disks[0].ref)
    assert read_all(source, SIZE) == known_bytes()
    source.close()


def test_a_change_to_a_working_copy_leaves_the_image_as_it_is(
    bench: Bench, host: Driver, spec: CloneSpec
) -> None:
    vm = working_copy(host, spec)
    with bench.path(vm.disks[0].ref).open("r+b") as file:
        file.write(b"maintained")
    source = host.open_source(vm.disks[0].ref)
    assert read_all(source, SIZE)[:10] == b"maintained"
    source.close()
    assert bench.path(spec.images[0]).read_bytes() == known_bytes()


def test_a_removed_working_copy_is_gone_and_may_be_removed_again(
    bench: Bench, host: Driver, spec: CloneSpec
) -> None:
    working_copy(host, spec)
    host.remove_working_copy("win11 maintenance", COPY)
    host.remove_working_copy("win11 maintenance", COPY)
    assert (host.survey().vms, bench.litter()) == ((), [])


def test_a_foreign_vm_is_never_taken_for_a_working_copy(bench: Bench, host: Driver, spec: CloneSpec) -> None:
    ref = bench.add_vm("win11 maintenance", known_bytes(4))
    with pytest.raises(Refused):
        working_copy(host, spec)
    with pytest.raises(Refused) as refused:
        host.remove_working_copy("win11 maintenance", COPY)
    assert refused.value.code == "NOT_OURS"
    assert bench.path(ref).read_bytes() == known_bytes(4)


def test_a_working_copy_is_shut_down_where_the_kind_can(host: Driver, spec: CloneSpec) -> None:
    name = working_copy(host, spec).name
    if Can.POWER not in host.survey().can:
        with pytest.raises(Refused) as refused:
            host.shut_down(name, COPY)
        assert refused.value.code == "PREREQUISITE"
        return
    host.shut_down(name, COPY)
    host.power(name, COPY, True)
    assert [vm.power for vm in host.survey().vms] == ["on"]
    with pytest.raises(Refused):
        host.shut_down(name, replace(COPY, owner="template-2"), force=True)
    host.shut_down(name, COPY)
    host.shut_down(name, COPY, force=True)
    assert [vm.power for vm in host.survey().vms] == ["off"]
    with pytest.raises(Missing):
        host.shut_down("another", COPY)


def test_power_is_switched_where_the_kind_can(host: Driver, spec: CloneSpec) -> None:
    host.clone(spec)
    if Can.POWER not in host.survey().can:
        with pytest.raises(Refused) as refused:
            host.power("desk 1", GUEST, True)
        assert refused.value.code == "PREREQUISITE"
        return
    host.power("desk 1", GUEST, True)
    assert [guest.power for guest in host.survey().guests] == ["on"]
    assert host.recreate(spec).power == "on"
    host.power("desk 1", GUEST, False)
    host.power("desk 1", GUEST, False)
    assert [guest.power for guest in host.survey().guests] == ["off"]
    with pytest.raises(Refused):
        host.power("desk 1", OTHERS, True)
    with pytest.raises(Missing):
        host.power("desk 2", GUEST, True)
