"""The whole job from the shell, against the started product."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.bench import MIB, SHORT, Bench
from tests.product import ROOT, Product, wait_for

pytestmark = pytest.mark.product


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    product = Product(tmp_path / "data", {**SHORT, "RASWEB_ALLOWED_ROOTS": str(tmp_path / "hosts")})
    yield Bench(product, tmp_path / "hosts")
    product.close()


def test_the_whole_job_is_done_with_the_exit_status_saying_how_it_went(bench: Bench) -> None:
    bench.product.start()
    bench.add("source", "left")
    bench.add("slow", bandwidth=MIB // 4)
    bench.vm("source")
    created = bench.run(
        "template", "create", "win11", "--source", "source:golden", "--target", "left", "--wait"
    )
    assert (created["distribution"], created["counts"]["ok"]) == ("OK", 2)

    adding = bench.run("template", "add-provider", "win11", "slow")
    assert (adding["distribution"], adding["counts"]["adding"]) == ("Adding provider", 1)
    bench.until_phase("copying", "slow")
    assert (
        bench.refused("template", "add-provider", "win11", "slow", "--wait", "--timeout", "0.3")["code"]
        == "TIMEOUT"
    )
    assert bench.refused("template", "maintenance", "win11", "enter")["code"] == "DISTRIBUTING"
    assert _interrupted(bench, "template", "add-provider", "win11", "slow", "--wait")
    cancelled = bench.run("template", "cancel", "win11", "slow", "--wait")
    assert [target["provider"] for target in cancelled["targets"]] == ["left", "source"]

    guests = bench.run("guest", "create", "win11", "--provider", "left", "--count", "2", "--wait")
    assert [(guest["name"], guest["state"]) for guest in guests] == [
        ("win11-001", "Ready"),
        ("win11-002", "Ready"),
    ]
    bench.run("guest", "delete", "win11-001", "--wait")
    assert all(row["ok"] for row in bench.run("template", "verify", "win11"))
    bench.run("template", "remove-provider", "win11", "left", "--delete-guests", "--wait")
    assert bench.run("guest", "list") == []
    assert "deleted" in bench.product.run("template", "delete", "win11", "--wait").stdout
    bench.check()
    for host in ("source", "left", "slow"):
        assert bench.images(host) == set()
        bench.run("provider", "remove", host)
    assert bench.run("provider", "list") == []


def test_without_a_database_every_command_is_one_sentence(bench: Bench) -> None:
    for words in (["template", "status"], ["provider", "list"], ["guest", "list"]):
        assert bench.refused(*words) == {
            "code": "DATABASE",
            "text": "The database was never set up.",
            "action": "Run `manage.py up` first.",
        }


def test_the_demo_is_made_once_and_never_over_somebodys_disk(bench: Bench) -> None:
    assert "source VM win11-golden" in bench.product.run("demo").stdout
    assert bench.product.run("demo", "--first").stdout == ""
    disk = bench.path("hv-ams-01") / "vms" / "win11-golden" / "disk0.raw"
    written = disk.stat().st_mtime_ns
    bench.product.run("demo")
    assert disk.stat().st_mtime_ns == written
    kinds = [row["kind"] for row in bench.run("provider", "list")]
    assert sorted(kinds) == ["directory", "directory", "directory", "simulator"]
    assert _unheard(bench, "provider", "list") == (0, b"")


def _interrupted(bench: Bench, *args: str) -> bool:
    """Press Ctrl-C in a command that waits; True when it ended in one sentence."""
    argv = [sys.executable, str(ROOT / "manage.py"), *args, "--json"]
    waiting = subprocess.Popen(
        argv, env=bench.product.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        wait_for(lambda: _has_the_database_open(waiting.pid, bench.product.data_dir), 20, "waiting")
        waiting.send_signal(signal.SIGINT)
        out, err = waiting.communicate(timeout=20)
    finally:
        waiting.kill()
    return (waiting.returncode, json.loads(out)["error"]["code"], err.count("\n")) == (1, "INTERRUPTED", 1)


def _unheard(bench: Bench, *args: str) -> tuple[int, bytes]:
    """The exit status and what it complains of when nobody reads its answer, as behind ``head``."""
    argv = [sys.executable, str(ROOT / "manage.py"), *args]
    reading, writing = os.pipe()
    os.close(reading)
    try:
        said = subprocess.run(
            argv, env=bench.product.env, stdout=writing, stderr=subprocess.PIPE, timeout=60, check=False
        )
    finally:
        os.close(writing)
    return said.returncode, said.stderr


def _has_the_database_open(pid: int, data_dir: Path) -> bool:
    for number in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            if os.readlink(f"/proc/{pid}/fd/{number}") == f"{data_dir}/rasweb.sqlite3":
                return True
    return False
