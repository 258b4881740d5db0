"""Maintenance and recreation with processes killed and a provider down."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.faults.bench import MIB, Bench

pytestmark = pytest.mark.product


def test_a_changed_template_reaches_every_guest_in_spite_of_a_kill_and_a_silent_provider(
    bench: Bench,
) -> None:
    bench.product.env["RASWEB_STALL_SECONDS"] = "60"
    bench.product.start()
    bench.add_simulated("source", size=24)
    bench.add("left", "right")
    bench.run(
        "template", "create", "win11", "--source", "source:sample-1", "--target", "left", "--target", "right", "--wait"
    )  # fmt: skip
    for host in ("left", "right"):
        bench.run("guest", "create", "win11", "--provider", host, "--count", "2", "--wait")
    before = bench.blob("source", bench.index("source")["vms"][0]["blobs"][0]["id"]).read_bytes()

    copy = bench.run("template", "maintenance", "win11", "enter", "--wait")["working_copy"]
    assert bench.refused("template", "retry", "win11")["code"] == "MAINTENANCE"
    changed = _change(bench.blob("source", copy["disks"][0]))
    bench.faults("source", "hang=copy")
    bench.run("template", "maintenance", "win11", "leave", "--new-version")
    bench.until(lambda: bench.index("source")["staged"], "a part of the new version")
    bench.product.kill(bench.holder("template"))
    bench.faults("source", "")
    bench.until(lambda: bench.rows(_CURRENT) and not bench.rows(_BEHIND), "the new version everywhere")
    answer = bench.status("win11")
    assert (answer["version"], answer["outdated_guests"], answer["recreation"]["state"]) == (2, 4, "Asked")

    bench.take_away("right")
    error = bench.refused("template", "recreate", "win11", "--wait")
    assert error["code"] == "PROVIDER_NOT_RESPONDING"
    assert error["text"] == "Not responding: right. No guest VM was recreated."
    assert _disks(bench, "left") == [before, before]
    bench.run("template", "recreate", "win11", "--later")
    bench.put_back("right")
    bench.run("provider", "check", "right")
    answer = bench.run("template", "recreate", "win11", "--wait")
    assert (answer["outdated_guests"], answer["recreation"]["state"]) == (0, "Completed")
    assert _disks(bench, "left") == _disks(bench, "right") == [changed, changed]

    bench.run("template", "maintenance", "win11", "enter", "--wait")
    answer = bench.run("template", "maintenance", "win11", "leave", "--discard", "--wait")
    assert (answer["version"], answer["status"], answer["distribution"]) == (2, "Ready", "OK")
    bench.check()


_CURRENT = (
    "SELECT 1 FROM templates_app_templateversion v JOIN templates_app_template t ON t.current_version_id = v.id "
    "WHERE v.number = 2 AND t.phase = 'ready'"
)
_BEHIND = (
    "SELECT 1 FROM templates_app_distributiontarget "
    "WHERE phase != 'installed' OR wanted_version_id != installed_version_id"
)


def _change(disk: Path) -> bytes:
    with disk.open("r+b") as file:
        file.seek(2 * MIB)
        file.write(os.urandom(MIB))
    return disk.read_bytes()


def _disks(bench: Bench, host: str) -> list[bytes]:
    found = sorted((bench.path(host) / "guests").glob("win11-*/*.raw"))
    return [disk.read_bytes() for disk in found]
