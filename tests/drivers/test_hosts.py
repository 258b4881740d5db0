"""The contract, for every kind: registering, surveying, and hosts that are not what they were."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from providers_app.drivers import (
    KINDS,
    Can,
    Driver,
    DriverError,
    Image,
    Missing,
    Refused,
    Unreachable,
    fields,
    load,
    open_driver,
)
from tests.drivers.benches import BENCHES, IMAGE, NAME, SIZE, Bench, known_bytes
from tests.lab.bench import LibvirtBench


def test_every_kind_has_a_bench() -> None:
    assert {*BENCHES, LibvirtBench.kind} == set(KINDS)


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_a_kind_says_which_settings_it_needs(kind: str) -> None:
    names = [field.name for field in fields(kind)]
    assert any(field.required for field in fields(kind))
    assert len(names) == len(set(names))
    assert (load(kind).kind, bool(load(kind).label)) == (kind, True)


def test_an_unknown_kind_is_refused_with_a_sentence() -> None:
    with pytest.raises(Refused, match="not known") as refused:
        open_driver("abacus", {})
    assert refused.value.code == "PREREQUISITE"


def test_registering_again_gives_the_same_id(bench: Bench) -> None:
    first = bench.driver().register()
    assert bench.driver().register() == first
    assert bench.connected().survey().host_id == first


def test_registering_changes_nothing_that_is_there(bench: Bench) -> None:
    bench.add_vm("win", known_bytes())
    before = bench.everything()
    bench.driver().register()
    assert bench.everything() == before


def test_a_survey_tells_all_of_a_fresh_host(bench: Bench, host: Driver) -> None:
    survey = host.survey()
    assert (survey.vms, survey.guests, survey.images, survey.staged) == ((), (), (), ())
    assert Can.FULL_CLONE in survey.can
    assert survey.can <= host.can
    assert survey.networks == bench.networks
    assert 0 < survey.free_bytes < survey.total_bytes


def test_a_survey_tells_a_source_vm_and_its_disk(bench: Bench, host: Driver) -> None:
    ref = bench.add_vm("win 11", known_bytes())
    (vm,) = host.survey().vms
    assert (vm.name, vm.memory_mib, vm.vcpus, vm.network) == ("win 11", 2048, 2, "lan")
    assert (vm.problem, vm.mark, vm.power) == ("", None, "off")
    (disk,) = vm.disks
    assert (disk.ref, disk.format, disk.size, disk.virtual_size) == (ref, "raw", SIZE, SIZE)
    assert 0 < disk.allocated < SIZE


def test_a_survey_changes_nothing(bench: Bench, host: Driver, image: Image) -> None:
    bench.add_vm("win", known_bytes())
    before = bench.everything()
    host.survey()
    assert bench.everything() == before


def test_the_named_networks_are_the_ones_there_are(folder_bench: Bench) -> None:
    assert folder_bench.connected(networks="lan, dmz,").survey().networks == ("lan", "dmz")


def test_a_host_that_lost_its_marker_is_not_mounted(bench: Bench) -> None:
    bench.empty()
    with pytest.raises(Unreachable, match="not mounted"):
        bench.connected()


def test_a_host_that_was_moved_away_is_unreachable(bench: Bench) -> None:
    bench.move_away()
    with pytest.raises(Unreachable, match="moved away or is not mounted"):
        bench.connected()


def test_a_host_that_is_moved_away_meanwhile_is_unreachable_and_nothing_is_published(
    bench: Bench, host: Driver
) -> None:
    sink = host.stage(NAME, SIZE, IMAGE)
    elsewhere = bench.move_away()
    with pytest.raises(Unreachable):
        sink.flush()
    with pytest.raises(Unreachable):
        sink.commit(NAME, IMAGE)
    sink.close()
    elsewhere.rename(bench.folder)
    survey = bench.connected().survey()
    assert not survey.images
    assert [staged.name for staged in survey.staged] == [NAME]


def test_a_host_that_returned_goes_on_where_it_was(bench: Bench, image: Image) -> None:
    bench.move_away().rename(bench.folder)
    assert bench.connected().survey().images == (image,)


def test_another_host_in_the_same_place_is_unreachable(bench: Bench) -> None:
    known = bench.connected().survey().host_id
    assert bench.connected(host_id=known).survey().host_id == known
    with pytest.raises(Unreachable, match="nother host"):
        bench.connected(host_id="00000000-0000-0000-0000-000000000000")


@pytest.mark.parametrize("path", ["", "relative/host", "/etc", "/", "a\0b"])
def test_a_folder_outside_the_allowed_roots_is_refused(folder_bench: Bench, path: str) -> None:
    bench = folder_bench
    for call in (lambda: bench.driver(path=path).register(), lambda: bench.connected(path=path)):
        with pytest.raises(Refused) as refused:
            call()
        assert refused.value.code == "PREREQUISITE"
        assert refused.value.action


def test_a_link_out_of_the_allowed_roots_is_refused(folder_bench: Bench, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    inside = tmp_path / "roots"
    inside.mkdir()
    (inside / "link").symlink_to(outside)
    with pytest.raises(Refused, match="outside"):
        folder_bench.driver(path=str(inside / "link"), roots=[str(inside)]).register()
    assert list(outside.iterdir()) == []


def test_no_allowed_root_means_no_host(folder_bench: Bench) -> None:
    with pytest.raises(Refused):
        folder_bench.connected(roots=[])


def test_a_disk_that_is_not_there_is_a_missing_source(host: Driver, image: Image) -> None:
    for ref in (
        "",
        "nothing",
        "vms/none/disk0.raw",
        "images/none",
        "../x",
        "vms/../images/x",
        image.ref + "x",
        "a\0b",
    ):
        with pytest.raises(Missing) as missing:
            host.open_source(ref)
        assert missing.value.code == "SOURCE_MISSING"


@pytest.mark.parametrize("kind", sorted(BENCHES))
def test_a_host_that_may_not_be_written_says_who_needs_which_right(kind: str, memory: Path) -> None:
    bench = BENCHES[kind](memory)
    ref, host = bench.add_vm("win", known_bytes()), bench.connected()
    for path in (bench.folder, *bench.folder.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)
    assert as_somebody_else(lambda: host.survey().vms[0].disks[0].ref) == ref
    for call in (lambda: host.stage(NAME, SIZE, IMAGE), lambda: host.remove(NAME, IMAGE)):
        assert as_somebody_else(call).startswith("PERMISSION: Give the account")
    bench.folder.chmod(0)
    assert as_somebody_else(bench.connected).startswith("PERMISSION: Give the account")
    bench.folder.chmod(0o755)
    for path in bench.folder.rglob("*"):
        path.chmod(0o755)
    bench.close()


def as_somebody_else(call: Callable[[], object]) -> str:
    """Run ``call`` in a child without root's rights; return what it gave, or its error's code and action."""
    receive, send = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            if os.getuid() == 0:
                os.setuid(65534)
            try:
                said = str(call())
            except DriverError as error:
                said = f"{error.code}: {error.action}"
            os.write(send, said.encode())
        finally:
            os._exit(0)
    os.close(send)
    os.waitpid(child, 0)
    with os.fdopen(receive) as pipe:
        return pipe.read()


def test_closing_twice_is_safe(bench: Bench) -> None:
    driver = bench.driver()
    driver.connect()
    driver.close()
    driver.close()


def test_marks_of_one_owner_are_told_from_others() -> None:
    assert IMAGE.owns(replace(IMAGE, version=9, digest=""))
    for other in (
        None,
        replace(IMAGE, owner="x"),
        replace(IMAGE, kind="guest"),
        replace(IMAGE, installation="x"),
    ):
        assert not IMAGE.owns(other)
