"""What is special about the simulator: sample VMs, and faults on demand."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from providers_app.drivers import CloneSpec, Driver, Image, NoSpace, Refused, Unreachable, open_driver
from providers_app.drivers.simulator.faults import HOSTILE_NAMES, Faults
from tests.drivers.benches import GUEST, IMAGE, NAME, SIZE, SimulatorBench, known_bytes
from tests.drivers.copying import aligned, fill, publish, read_all


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[SimulatorBench]:
    made = SimulatorBench(tmp_path)
    yield made
    made.close()


def test_it_makes_its_folder_and_as_many_sample_vms_as_it_is_told(tmp_path: Path) -> None:
    settings = {"path": str(tmp_path / "new"), "roots": [str(tmp_path)], "vms": 2, "size_mib": 6}
    open_driver("simulator", settings).register()
    with open_driver("simulator", {**settings, "vms": 3}) as host:
        host.register()
        vms = host.survey().vms
        assert [vm.name for vm in vms] == ["sample-1", "sample-2", "sample-3"]
        assert {vm.disks[0].size for vm in vms} == {6 << 20}
        assert all(0 < vm.disks[0].allocated < 3 << 20 for vm in vms)
        sources = [host.open_source(vm.disks[0].ref) for vm in vms]
        contents = {read_all(source, source.size) for source in sources}
        assert len(contents) == 3
        for source in sources:
            source.close()


def test_the_folder_above_must_exist(tmp_path: Path) -> None:
    settings = {"path": str(tmp_path / "a" / "b"), "roots": [str(tmp_path)]}
    with pytest.raises(Unreachable, match="not there"), open_driver("simulator", settings):
        pass
    with pytest.raises(Exception, match="There is no folder"):
        open_driver("simulator", settings).register()


def test_the_wrong_password_is_refused(bench: SimulatorBench) -> None:
    for password, fits in (("anything", True), ("wrong", False)):
        driver = open_driver("simulator", bench.settings, {"password": password})
        if fits:
            driver.register()
            continue
        for call in (driver.register, driver.connect):
            with pytest.raises(Refused, match="password") as refused:
                call()
            assert refused.value.code == "PERMISSION"


@pytest.mark.parametrize(
    "text", ["refused", "slow", "slow=", "cut=-1", "cut=x", "no_space=x", "hostile_names=1", "=", "slow=²"]
)
def test_a_word_that_is_no_fault_is_refused_with_a_sentence(bench: SimulatorBench, text: str) -> None:
    with pytest.raises(ValueError, match=r"\.$"):
        Faults.parse(text)
    bench.switch(text)
    with pytest.raises(Refused) as refused:
        bench.connected()
    assert refused.value.code == "PREREQUISITE"


def test_all_faults_are_told_in_one_line() -> None:
    faults = Faults.parse(
        "refuse=survey,stage hang crash=write slow=5 cut=6 no_space=7 corrupt=8 hostile_names"
    )
    assert (faults.refuse, faults.crash) == ({"survey", "stage"}, {"write"})
    assert (faults.slow, faults.cut, faults.no_space, faults.corrupt, faults.hostile_names) == (
        5,
        6,
        7,
        8,
        True,
    )
    assert Faults.parse("no_space corrupt") == Faults(no_space=0, corrupt=0)
    assert Faults.parse(" ") == Faults()


def test_faults_from_the_settings_and_from_the_file_add_up(bench: SimulatorBench) -> None:
    bench.switch("no_space")
    host = bench.connected(faults="hostile_names")
    survey = host.survey()
    assert (survey.free_bytes, len(survey.vms)) == (0, len(HOSTILE_NAMES))


def test_refuse_refuses_everything_or_only_what_is_named(bench: SimulatorBench, host: Driver) -> None:
    bench.switch("refuse=stage,remove")
    host.survey()
    with pytest.raises(Refused, match="as it was told"):
        host.stage(NAME, SIZE, IMAGE)
    with pytest.raises(Refused, match="as it was told"):
        host.remove(NAME, IMAGE)
    bench.switch("refuse")
    with pytest.raises(Refused):
        host.survey()
    with pytest.raises(Refused):
        bench.connected()
    bench.switch("")
    host.survey()


def test_hang_hangs_until_it_is_switched_off(bench: SimulatorBench, host: Driver) -> None:
    bench.switch("hang=survey")
    thread = threading.Thread(target=host.survey)
    thread.start()
    thread.join(0.1)
    assert thread.is_alive()
    bench.switch("")
    thread.join(5)
    assert not thread.is_alive()


def test_crash_ends_the_process_that_calls(bench: SimulatorBench, host: Driver) -> None:
    bench.switch("crash=stage")
    host.survey()
    if (child := os.fork()) == 0:
        host.stage(NAME, SIZE, IMAGE)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


def test_slow_takes_its_time(bench: SimulatorBench, host: Driver) -> None:
    sink = host.stage(NAME, SIZE, IMAGE)
    bench.switch("slow=100000")
    begun = time.monotonic()
    sink.write(0, aligned(bytes(10_000)))
    assert time.monotonic() - begun >= 0.1
    sink.abort()


def test_cut_ends_a_copy_and_each_new_attempt_gets_further(bench: SimulatorBench, host: Driver) -> None:
    content = known_bytes()
    bench.switch("cut=70000")
    first = host.stage(NAME, SIZE, IMAGE)
    with pytest.raises(Unreachable, match="was cut"):
        fill(first, content, [(0, 60_000), (60_000, 20_000)])
    first.close()
    second = host.stage(NAME, SIZE, IMAGE)
    assert second.token == first.token
    fill(second, content, [(60_000, 60_000)])
    assert read_all(second, 60_000) == content[:60_000]
    second.abort()


def test_a_source_is_cut_too(bench: SimulatorBench, host: Driver) -> None:
    source = host.open_source(bench.add_vm("win", known_bytes()))
    bench.switch("cut=5000")
    assert source.read_into(0, aligned(bytes(4096))) == 4096
    with pytest.raises(Unreachable):
        source.read_into(4096, aligned(bytes(4096)))
    source.close()


def test_no_space_is_told_before_and_met_during_a_copy(bench: SimulatorBench, host: Driver) -> None:
    bench.switch("no_space")
    assert host.survey().free_bytes == 0
    with pytest.raises(NoSpace):
        host.stage(NAME, SIZE, IMAGE)
    bench.switch("no_space=5000")
    assert host.survey().free_bytes > 0
    sink = host.stage(NAME, SIZE, IMAGE)
    sink.write(0, aligned(bytes(4096)))
    with pytest.raises(NoSpace):
        sink.write(4096, aligned(bytes(4096)))
    sink.abort()
    assert bench.litter() == []


def test_no_space_stops_clones(bench: SimulatorBench, host: Driver, spec: CloneSpec) -> None:
    bench.switch("no_space")
    with pytest.raises(NoSpace):
        host.clone(spec)


def test_corrupt_stores_another_byte_than_was_sent(bench: SimulatorBench, host: Driver) -> None:
    bench.switch("corrupt=4096")
    sink = host.stage(NAME, SIZE, IMAGE)
    fill(sink, known_bytes())
    sink.flush()
    found, sent = read_all(sink, SIZE), known_bytes()
    assert [at for at in range(SIZE) if found[at] != sent[at]] == [4096]
    sink.abort()


def test_hostile_names_are_fit_to_be_stored_and_shown(bench: SimulatorBench, host: Driver) -> None:
    bench.switch("hostile_names")
    names = [vm.name for vm in host.survey().vms]
    assert len(names) == len(set(names)) == len(HOSTILE_NAMES)
    assert all(name.isprintable() and len(name) < 120 for name in names)
    assert any("<script>" in name for name in names)


def test_a_guest_that_ran_runs_again_after_it_was_recreated(host: Driver, spec: CloneSpec) -> None:
    host.clone(spec)
    assert host.recreate(spec).power == "off"
    host.power("desk 1", GUEST, True)
    assert host.recreate(spec).power == "on"


def test_ids_are_opaque_and_survive_what_changes(bench: SimulatorBench, host: Driver, image: Image) -> None:
    assert NAME not in image.ref
    publish(host, known_bytes(2), "other.raw", IMAGE)
    assert image in host.survey().images
