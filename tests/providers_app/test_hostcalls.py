"""Driver verbs in a child process: a hang is a time-out, a crash an error, and nothing of it stays behind."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from providers_app import driverprocess, hostcalls
from providers_app.drivers import DriverError, Mark, Missing, Refused, Survey, Unreachable
from providers_app.hostcalls import HostAddress, Stopped, call, call_many
from tests.drivers.benches import IMAGE, NAME, DirectoryBench, SimulatorBench

PATIENCE = 20.0
IDLING = """
import time
from providers_app.drivers.idle import Idle
with Idle(0.1).busy():
    time.sleep(0.3)
    print("done", flush=True)
time.sleep(60)
"""


@pytest.fixture
def simulator(tmp_path: Path) -> Iterator[SimulatorBench]:
    (tmp_path / "simulator").mkdir()
    made = SimulatorBench(tmp_path / "simulator")
    yield made
    made.close()


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[DirectoryBench]:
    (tmp_path / "directory").mkdir()
    made = DirectoryBench(tmp_path / "directory")
    yield made
    made.close()


@pytest.fixture(autouse=True)
def _no_process_of_another_test() -> Iterator[None]:
    driverprocess.let_go()
    yield
    driverprocess.let_go()


def address(bench: SimulatorBench | DirectoryBench, **settings: str) -> HostAddress:
    return HostAddress(bench.kind, {**bench.settings, **settings})


def children() -> set[int]:
    """The driver processes of this one, whatever else tests before have left running."""
    found = Path(f"/proc/self/task/{os.getpid()}/children").read_text()
    return {int(pid) for pid in found.split() if b"providers_app.drivers" in _command(pid)}


def _command(pid: str) -> bytes:
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    return b""


def test_a_call_gives_what_the_driver_gives(directory: DirectoryBench) -> None:
    survey = call(address(directory), "survey", timeout=PATIENCE)
    assert replace(survey, free_bytes=0) == replace(directory.connected().survey(), free_bytes=0)
    assert call(address(directory), "register", timeout=PATIENCE) == survey.host_id
    assert call(address(directory), "remove", timeout=PATIENCE, name=NAME, mark=IMAGE) is None


def test_an_error_of_the_host_arrives_as_it_was(directory: DirectoryBench) -> None:
    with pytest.raises(Refused) as refused:
        call(address(directory), "remove", timeout=PATIENCE, name="../x", mark=IMAGE)
    assert refused.value.code == "PREREQUISITE"
    directory.empty()
    with pytest.raises(Unreachable, match="not mounted"):
        call(address(directory), "survey", timeout=PATIENCE)


def test_only_verbs_of_the_contract_are_called(directory: DirectoryBench) -> None:
    for verb in ("close", "__init__", "host", "nothing"):
        with pytest.raises(DriverError, match="no verb"):
            call(address(directory), verb, timeout=PATIENCE)


def test_an_unexpected_fault_is_one_plain_sentence(
    simulator: SimulatorBench, capfd: pytest.CaptureFixture[str]
) -> None:
    host = HostAddress(simulator.kind, {**simulator.settings, "vms": "secret word"})
    with pytest.raises(DriverError, match="failed unexpectedly") as failed:
        call(host, "register", timeout=PATIENCE)
    assert (failed.value.code, failed.value.permanent) == ("FAILED", False)
    assert "secret" not in failed.value.text
    assert "Traceback" in capfd.readouterr().err


def test_a_host_that_hangs_is_a_time_out_and_its_process_is_gone(simulator: SimulatorBench) -> None:
    simulator.switch("hang")
    before = children()
    with pytest.raises(Unreachable) as silent:
        call(address(simulator), "survey", timeout=0.5)
    assert silent.value.code == "TIMEOUT"
    assert children() == before


def test_a_call_can_be_stopped(simulator: SimulatorBench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hostcalls, "_TICK", 0.05)
    simulator.switch("hang")
    ticks = iter((True, True, False))
    before = children()
    with pytest.raises(Stopped):
        call(address(simulator), "survey", timeout=PATIENCE, on_tick=lambda: next(ticks))
    assert list(ticks) == []
    assert children() == before


def test_a_driver_that_is_killed_is_an_error(simulator: SimulatorBench) -> None:
    simulator.switch("hang")
    before = children()

    def kill() -> None:
        while not (born := children() - before):
            time.sleep(0.01)
        for pid in born:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    thread = threading.Thread(target=kill)
    thread.start()
    with pytest.raises(DriverError, match="ended unexpectedly"):
        call(address(simulator), "survey", timeout=PATIENCE)
    thread.join()


def test_one_hanging_host_delays_no_other(simulator: SimulatorBench, directory: DirectoryBench) -> None:
    simulator.switch("hang")
    hosts = {
        "hangs": address(simulator),
        "good": address(directory),
        "moved": HostAddress("directory", {**directory.settings, "path": directory.settings["path"] + "x"}),
        "unknown": HostAddress("abacus", {}),
    }
    answers = dict(call_many(hosts, "survey", timeout=1.5))
    assert list(answers)[-1] == "hangs"
    assert isinstance(answers["good"], Survey)
    assert {key: answer.code for key, answer in answers.items() if isinstance(answer, DriverError)} == {
        "hangs": "TIMEOUT",
        "moved": "UNREACHABLE",
        "unknown": "PREREQUISITE",
    }


def test_answers_come_as_they_arrive(simulator: SimulatorBench, directory: DirectoryBench) -> None:
    simulator.switch("hang")
    answers = call_many({1: address(simulator), 2: address(directory)}, "survey", timeout=PATIENCE)
    assert next(answers)[0] == 2
    simulator.switch("")
    assert next(answers)[0] == 1
    assert next(answers, None) is None


def test_no_hosts_need_no_process() -> None:
    assert list(call_many({}, "survey", timeout=PATIENCE)) == []


def test_many_hosts_share_one_process_whatever_the_limit_of_open_files(directory: DirectoryBench) -> None:
    hosts = dict.fromkeys(range(60), address(directory))
    before, (soft, hard) = children(), resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 32, hard))
    try:
        answers = call_many(hosts, "survey", timeout=PATIENCE)
        first = next(answers)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert len(children() - before) == 1
    assert all(isinstance(answer, Survey) for _, answer in [first, *answers])


def test_secrets_are_never_shown_nor_on_a_command_line(
    simulator: SimulatorBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hostcalls, "_TICK", 0.05)
    host = HostAddress(simulator.kind, simulator.settings, {"password": "hunter2"})
    assert "hunter2" not in repr(host)
    simulator.switch("hang")
    seen: list[str] = []

    def look() -> bool:
        for pid in children():
            with suppress(OSError):
                seen.append(
                    Path(f"/proc/{pid}/cmdline").read_text() + Path(f"/proc/{pid}/environ").read_text()
                )
        return not any("providers_app.drivers" in text for text in seen)

    with pytest.raises(Stopped):
        call(host, "survey", timeout=PATIENCE, on_tick=look)
    assert "hunter2" not in "".join(seen)


def test_calls_share_a_process_as_long_as_it_answers(
    directory: DirectoryBench, simulator: SimulatorBench
) -> None:
    before = children()
    call(address(directory), "survey", timeout=PATIENCE)
    kept = children() - before
    assert len(kept) == 1
    assert (
        len(list(call_many({1: address(simulator), 2: address(directory)}, "survey", timeout=PATIENCE))) == 2
    )
    assert children() - before == kept
    simulator.switch("hang")
    with pytest.raises(Unreachable):
        call(address(simulator), "survey", timeout=0.2)
    assert children() == before
    assert isinstance(call(address(directory), "survey", timeout=PATIENCE), Survey)


def test_a_kept_process_that_was_killed_costs_no_call(directory: DirectoryBench) -> None:
    before = children()
    call(address(directory), "survey", timeout=PATIENCE)
    (kept,) = children() - before
    os.kill(kept, signal.SIGKILL)
    os.waitid(os.P_PID, kept, os.WEXITED | os.WNOWAIT)
    assert isinstance(call(address(directory), "survey", timeout=PATIENCE), Survey)


def test_a_kept_process_is_left_when_other_programs_are_to_be_used(
    directory: DirectoryBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = children()
    call(address(directory), "survey", timeout=PATIENCE)
    kept = children() - before
    monkeypatch.setenv("PATH", "/nowhere")
    call(address(directory), "survey", timeout=PATIENCE)
    assert not children() & kept


def test_a_forked_process_uses_a_process_of_its_own(directory: DirectoryBench) -> None:
    call(address(directory), "survey", timeout=PATIENCE)
    kept = children()
    if (pid := os.fork()) == 0:
        with suppress(BaseException):
            call(address(directory), "survey", timeout=PATIENCE)
            os._exit(0 if children() else 2)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert call(address(directory), "survey", timeout=PATIENCE)
    assert children() == kept


def test_a_process_that_gets_no_work_ends_by_itself() -> None:
    project = Path(hostcalls.__file__).parents[1]
    command = [sys.executable, "-c", IDLING]
    done = subprocess.run(command, capture_output=True, timeout=PATIENCE, cwd=project, check=True)
    assert done.stdout == b"done\n"


def test_nonsense_of_a_driver_is_an_error_not_a_crash() -> None:
    for answer in ({}, {"ok": True, "result": {"host_id": 5}}, {"ok": False}, {"ok": False, "error": []}):
        with pytest.raises(DriverError, match="makes no sense"):
            hostcalls._result("survey", answer)


def test_the_process_ends_when_all_have_answered() -> None:
    command = [sys.executable, "-m", "providers_app.drivers"]
    jobs = (
        b'{"id": "1", "kind": "abacus", "verb": "survey"}\n{"id": "2", "kind": "directory", "verb": "fly"}\n'
    )
    project = Path(hostcalls.__file__).parents[1]
    done = subprocess.run(command, input=jobs, capture_output=True, timeout=PATIENCE, cwd=project, check=True)
    assert sorted(line[:10] for line in done.stdout.splitlines()) == [b'{"id": "1"', b'{"id": "2"']


def test_a_process_whose_answers_nobody_takes_ends_without_a_word() -> None:
    command = [sys.executable, "-m", "providers_app.drivers"]
    project, pipe = Path(hostcalls.__file__).parents[1], subprocess.PIPE
    process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, cwd=project)
    assert process.stdout is not None
    process.stdout.close()
    _, said = process.communicate(b'{"id": "1", "kind": "abacus", "verb": "survey"}\n', PATIENCE)
    assert (process.returncode, said) == (0, b"")


def test_arguments_of_all_sorts_travel(simulator: SimulatorBench) -> None:
    with pytest.raises(Missing, match="no VM desk"):
        call(
            address(simulator), "power", timeout=PATIENCE, name="desk", mark=Mark("a", "guest", "b"), on=True
        )
