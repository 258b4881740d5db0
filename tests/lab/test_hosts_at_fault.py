"""Real hosts that lose power, crash, freeze, fill up or are changed by hand, and the same product all the time."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.drivers.benches import write_sparse
from tests.lab.bench import LibvirtBench
from tests.lab.hosts import Lab
from tests.lab.site import SETTLED_SECONDS, Site
from tests.lab.stops import frozen_at

pytestmark = pytest.mark.product

MIB = 1 << 20
SIZE, DATA = 64 * MIB, 8 * MIB
RUNS = tuple((start, DATA // 16) for start in range(0, SIZE, SIZE // 16))  # many blocks, each quickly sent
GOLDEN = b"".join(os.urandom(length).ljust(SIZE // 16, b"\0") for _, length in RUNS)
SLOW = 2 * MIB
SILENT, READY, STALE = "Not available", "Ready", "Needs update"
FAILED = "Failed to distribute"


@pytest.fixture(scope="module")
def running(lab: Lab, small_lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A product with the hosts alpha, beta and gamma, and delta, whose pool holds 24 MiB."""
    root = tmp_path_factory.mktemp("site")
    hosts = zip(("alpha", "beta", "gamma", "delta"), (*lab.hosts, *small_lab.hosts), strict=True)
    benches = {name: LibvirtBench(root, host) for name, host in hosts}
    site = Site(root / "data", benches)
    try:
        site.start().add_source(GOLDEN, RUNS)
        yield site
    finally:
        site.product.close()
        for bench in benches.values():
            bench.close()


@pytest.fixture
def site(running: Site) -> Iterator[Site]:
    """The same site for each test; afterwards all that it ordered is taken back, and nothing may be left of it."""
    yield running
    for name in running.benches:
        running.limit(name, 0)
        running.until_state(name, READY)
    if names := [guest["name"] for guest in running.run("guest", "list")]:
        running.run("guest", "delete", *names, "--wait")
    for template in running.run("template", "status"):
        running.run("template", "delete", template["template"], "--wait")
    left = {name: running.files(name) for name in running.benches}
    assert left == {"alpha": {"golden-disk.raw"}, "beta": set(), "gamma": set(), "delta": set()}
    assert running.benches["alpha"].path("golden-disk.raw").read_bytes() == GOLDEN
    assert "Traceback" not in running.product.output


def until_moving(site: Site, name: str, template: str = "win11", *, proven: int = -1) -> int:
    """Wait until bytes go to a provider, and more than ``proven`` of them were proven there; how many."""
    found = -1

    def moves() -> bool:
        nonlocal found
        target = site.target(name, template)
        found = target["bytes_done"]
        return target["rate"] > 0 and found > proven and target["percent"] < 100

    site.until(moves, f"bytes on their way to {name}", template)
    return found


def image(site: Site, name: str) -> Path:
    """The file of the image that the product says is installed on a provider."""
    return site.benches[name].path(site.target(name)["image"].rpartition("/")[2])


# Copies


def test_a_host_that_loses_power_in_the_middle_of_a_copy_is_finished_when_it_is_back(site: Site) -> None:
    site.limit("gamma", SLOW)
    site.create("beta", "gamma")
    until_moving(site, "gamma")
    with site.without_power("gamma"):
        site.until_state("gamma", SILENT)
        site.until_word("beta", "OK")
        assert site.words("gamma")[:2] == (SILENT, "Distributing")
        assert site.status()["distribution"] == "Distributing"
        site.limit("gamma", 0)
    site.until_ok()
    assert [site.published(name, 1) for name in ("alpha", "beta", "gamma")] == [GOLDEN] * 3


def test_a_copy_goes_on_from_what_was_proven_after_the_daemon_of_its_host_was_killed(site: Site) -> None:
    site.limit("gamma", MIB)
    site.create("gamma")
    proven = until_moving(site, "gamma", proven=0)
    site.benches["gamma"].host.kill_daemon()
    site.limit("gamma", 0)
    site.until_ok()
    assert site.published("gamma", 1) == GOLDEN
    (sent,) = re.findall(r"\((\d+) bytes\) sent", site.installed(1)["gamma"])
    assert int(sent) <= DATA - proven


def test_a_frozen_host_holds_up_no_other_and_is_finished_when_it_thaws(site: Site) -> None:
    site.limit("gamma", SLOW)
    site.create("beta", "gamma")
    until_moving(site, "gamma")
    with site.frozen("gamma"):
        site.until_word("beta", "OK")
        site.run("guest", "create", "win11", "--provider", "beta", "--wait")
        site.until_state("gamma", SILENT)
        assert site.words("gamma")[:2] == (SILENT, "Distributing")
        assert site.words("beta") == (READY, "OK", None)
        site.limit("gamma", 0)
    site.until_ok()
    assert site.published("gamma", 1) == GOLDEN


def test_another_holder_takes_the_place_of_a_lost_source_and_without_one_the_copy_waits(site: Site) -> None:
    site.create("beta", template="held")
    site.create(template="alone")
    site.until_ok("held")
    site.until_ok("alone")
    site.limit("beta", SLOW)
    site.limit("gamma", SLOW)
    site.run("template", "add-provider", "held", "gamma")
    site.run("template", "add-provider", "alone", "beta")
    until_moving(site, "gamma", "held")
    until_moving(site, "beta", "alone")
    with site.without_power("alpha"):
        site.limit("gamma", 0)
        site.until_code("beta", "SOURCE_UNREACHABLE", "alone")
        site.until_ok("held")
        assert site.words("alpha", "held") == (SILENT, "OK", None)
        assert site.published("gamma", 1, template="held") == GOLDEN
        assert site.words("beta", "alone") == (READY, "Adding provider", "SOURCE_UNREACHABLE")
        site.limit("beta", 0)
    site.until_ok("alone")
    assert site.published("beta", 1, template="alone") == GOLDEN


def test_a_source_image_that_is_changed_during_the_copy_spoils_no_target(site: Site) -> None:
    site.create()
    site.until_ok()
    site.limit("gamma", SLOW)
    site.run("template", "add-provider", "win11", "gamma")
    until_moving(site, "gamma")
    source = image(site, "alpha")
    with source.open("r+b") as file:
        file.seek(RUNS[-1][0])
        file.write(bytes(4096))
    site.until(lambda: site.status()["counts"]["failed"] == 2, "both failed")
    assert site.words("gamma") == (STALE, FAILED, "SOURCE_CHANGED")
    assert site.words("alpha") == (STALE, FAILED, "CONTENT_CHANGED")
    assert not list(site.benches["gamma"].folder.glob(".win11-*.rasweb.json"))  # nothing was published

    write_sparse(source, GOLDEN, RUNS)  # the administrator has a backup
    assert site.run("template", "retry", "win11", "--wait")["distribution"] == "OK"
    assert site.published("gamma", 1) == GOLDEN
    (guest,) = site.run("guest", "create", "win11", "--provider", "alpha", "--wait")
    assert guest["state"] == "Ready"


def test_a_full_pool_is_refused_at_first_and_cleared_later_and_waits_for_retry(site: Site) -> None:
    filler = site.benches["delta"].path("filler")
    filler.write_bytes(bytes(20 * MIB))
    site.create("delta")
    site.until_word("delta", FAILED)
    assert site.words("delta") == (STALE, FAILED, "NO_SPACE")
    text = site.target("delta")["error"]["text"]
    assert re.fullmatch(r"delta is too full: needs 8 MiB, \d MiB free\.", text), text
    assert site.files("delta") == {"filler"}

    filler.unlink()
    site.limit("delta", SLOW)
    site.run("template", "retry", "win11", "delta")
    until_moving(site, "delta")
    fill(filler)
    site.until_word("delta", FAILED)
    assert site.words("delta") == (STALE, FAILED, "NO_SPACE")
    assert "full" in site.target("delta")["error"]["text"]
    assert site.files("delta") == {"filler"}

    filler.unlink()
    site.limit("delta", 0)
    site.run("provider", "check", "delta")
    site.tried("template", "add-provider", "win11", "beta", "--wait")
    assert (site.words("beta")[1], site.words("delta")[2]) == ("OK", "NO_SPACE")
    assert site.run("template", "retry", "win11", "delta", "--wait")["distribution"] == "OK"
    assert site.published("delta", 1) == GOLDEN


def fill(path: Path) -> None:
    """Take all the room there is."""
    with path.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(MIB))


# What others do on a host


def test_images_changed_and_deleted_by_hand_need_an_update_and_retry_mends_them(site: Site) -> None:
    site.create("beta", "gamma")
    site.until_ok()
    site.run("guest", "create", "win11", "--provider", "beta", "--prefix", "desk", "--wait")
    changed, lost = image(site, "beta"), image(site, "gamma")
    with changed.open("r+b") as file:
        file.write(b"changed by hand")
    lost.unlink()
    site.until_code("beta", "CONTENT_CHANGED")
    site.until_code("gamma", "CONTENT_LOST")
    assert {site.words(name)[:2] for name in ("beta", "gamma")} == {(STALE, FAILED)}
    assert site.status()["distribution"] == FAILED
    for name in ("beta", "gamma"):
        assert site.refused("guest", "create", "win11", "--provider", name)[0] == "NOT_INSTALLED"

    assert site.run("template", "retry", "win11", "--wait")["distribution"] == "OK"
    assert all(row["ok"] for row in site.run("template", "verify", "win11"))
    assert [image(site, name).read_bytes() for name in ("beta", "gamma")] == [GOLDEN] * 2
    assert changed != image(site, "beta")
    assert changed.read_bytes()[:15] == b"changed by hand"  # the guest stands on it

    site.run("guest", "delete", "desk-001", "--wait")
    site.tried("template", "remove-provider", "win11", "beta", "--wait")
    assert site.words("beta") == (STALE, FAILED, "CONTENT_CHANGED")
    changed.unlink()  # by the administrator, with the note beside it: rasweb left both to him
    for note in site.benches["beta"].folder.glob(".win11-*.rasweb.json"):
        note.unlink()
    site.run("template", "retry", "win11", "beta", "--wait")
    assert site.files("beta") == set()


def test_a_foreign_volume_of_the_name_of_the_image_is_left_alone(site: Site) -> None:
    site.create()
    site.until_ok()
    (note,) = site.benches["alpha"].folder.glob(".win11-v1-*.rasweb.json")
    taken = site.benches["gamma"].path(note.name.removeprefix(".").removesuffix(".rasweb.json"))
    taken.write_bytes(b"somebody else's")
    written = taken.stat().st_mtime_ns
    site.tried("template", "add-provider", "win11", "gamma", "--wait")
    assert site.words("gamma") == (STALE, FAILED, "PATH_CONFLICT")
    assert (taken.read_bytes(), taken.stat().st_mtime_ns) == (b"somebody else's", written)
    assert site.files("gamma") == {taken.name}

    moved = taken.rename(taken.with_name("moved-by-hand"))
    assert site.run("template", "retry", "win11", "gamma", "--wait")["distribution"] == "OK"
    assert site.published("gamma", 1) == GOLDEN
    moved.unlink()


# Removal, maintenance, recreation


def test_a_removal_from_a_host_without_power_is_owed_and_done_when_it_is_back(site: Site) -> None:
    site.create("gamma")
    site.until_ok()
    with site.without_power("gamma"):
        site.run("template", "remove-provider", "win11", "gamma")
        site.until(lambda: site.words("gamma")[:2] == (SILENT, "Removing provider"), "an owed removal")
        assert site.status()["distribution"] == "Removing provider"
        assert site.files("gamma")
    site.until(lambda: not site.target("gamma"), "the owed removal")
    assert site.files("gamma") == set()
    assert site.status()["distribution"] == "OK"


def test_a_removal_from_a_frozen_host_is_given_up_in_time_and_done_when_it_thaws(site: Site) -> None:
    site.create("gamma")
    site.until_ok()
    with site.frozen("gamma"):
        site.run("template", "remove-provider", "win11", "gamma")
        site.until(lambda: site.words("gamma")[2] in ("TIMEOUT", "UNREACHABLE"), "the end of the first try")
        site.until(lambda: site.words("gamma")[:2] == (SILENT, "Removing provider"), "an owed removal")
    site.until(lambda: not site.target("gamma"), "the owed removal")
    assert site.files("gamma") == set()


def test_a_source_lost_on_the_way_into_or_out_of_maintenance_loses_nothing(site: Site) -> None:
    maintenance = ("template", "maintenance", "win11")
    alpha = site.benches["alpha"]
    site.create("beta")
    site.until_ok()
    with frozen_at(alpha.host, alpha.folder, new_disk(site, "alpha")) as frozen:
        site.run(*maintenance, "enter")
        assert frozen.wait(SETTLED_SECONDS), "no beginning of a working copy"
        assert site.status()["status"] == "Entering maintenance"
        alpha.host.power_cut()
    try:
        site.until(lambda: site.status()["status"] == "Ready", "the end of the order to enter")
        assert site.status()["error"]["code"]
        site.until_state("alpha", SILENT)
        assert site.refused(*maintenance, "enter")[0] == "NOT_AVAILABLE"
    finally:
        alpha.host.boot()
    site.until_state("alpha", READY)

    copy = site.run(*maintenance, "enter", "--wait")["working_copy"]
    disk = alpha.path(copy["disks"][0].rpartition("/")[2])
    with disk.open("r+b") as file:
        file.write(b"the next version")
    with frozen_at(alpha.host, alpha.folder, new_disk(site, "alpha")) as frozen:
        site.run(*maintenance, "leave", "--new-version")
        assert frozen.wait(SETTLED_SECONDS), "no beginning of the new version"
        assert site.status()["status"] == "Exiting maintenance"
        alpha.host.power_cut()
    try:
        site.until(lambda: site.status()["status"] == "Maintenance", "the end of the order to leave")
        assert site.status()["error"]["code"]
        assert site.status()["version"] == 1
        site.until_state("alpha", SILENT)
        assert site.refused(*maintenance, "leave", "--new-version")[0] == "NOT_AVAILABLE"
    finally:
        alpha.host.boot()
    site.until_state("alpha", READY)
    assert disk.read_bytes()[:16] == b"the next version"

    assert site.run(*maintenance, "leave", "--new-version", "--wait")["version"] == 2
    site.until_ok()
    assert [site.published(name, 2) for name in ("alpha", "beta")] == [b"the next version" + GOLDEN[16:]] * 2

    before = site.files("alpha")
    copy = site.run(*maintenance, "enter", "--wait")["working_copy"]
    assert copy["vm"] in alpha.definitions()
    answer = site.run(*maintenance, "leave", "--discard", "--wait")
    assert (answer["status"], answer["version"], answer["distribution"]) == ("Ready", 2, "OK")
    assert copy["vm"] not in alpha.definitions()
    assert site.files("alpha") == before


def test_guests_are_recreated_only_on_hosts_that_answer_and_on_the_others_when_they_are_back(
    site: Site,
) -> None:
    site.create("beta", "gamma", clone="full")
    site.until_ok()
    for name in ("beta", "gamma"):
        site.run("guest", "create", "win11", "--provider", name, "--prefix", name, "--wait")
    copy = site.run("template", "maintenance", "win11", "enter", "--wait")["working_copy"]
    with site.benches["alpha"].path(copy["disks"][0].rpartition("/")[2]).open("r+b") as file:
        file.write(b"the next version")
    site.run("template", "maintenance", "win11", "leave", "--new-version", "--wait")
    site.until_ok()
    changed = b"the next version" + GOLDEN[16:]
    first = {name: disk(site, name) for name in ("beta", "gamma")}

    with site.frozen("gamma"):  # it still counts as ready: the verification itself has to find out
        assert site.refused("template", "recreate", "win11", "--wait")[0] == "PROVIDER_NOT_RESPONDING"
        assert {name: disk(site, name) for name in first} == first
    with site.without_power("gamma"):
        error = site.refused("template", "recreate", "win11", "--wait")
        assert error == ("PROVIDER_NOT_RESPONDING", "Not responding: gamma. No guest VM was recreated.")
        assert {name: disk(site, name) for name in first} == first
        assert site.status()["recreation"]["silent"] == ["gamma"]
        answer = site.run("template", "recreate", "win11", "--later")
        assert (answer["recreation"]["state"], answer["outdated_guests"]) == ("Deferred", 2)
        answer = site.tried("template", "recreate", "win11", "--only-responding", "--wait")
        assert (answer["recreation"]["state"], answer["outdated_guests"]) == ("Completed with errors", 1)
        assert disk(site, "beta").read_bytes() == changed
        assert disk(site, "gamma").read_bytes() == GOLDEN
    site.until_state("gamma", READY)

    gamma = site.benches["gamma"]
    with frozen_at(gamma.host, gamma.folder, new_disk(site, "gamma")) as frozen:
        site.run("template", "recreate", "win11")
        assert frozen.wait(SETTLED_SECONDS), "no beginning of a new disk"
        assert site.guest("gamma-001")["state"] == "Recreating"
        gamma.host.power_cut()
    try:
        site.until(lambda: site.status()["recreation"]["counts"]["todo"] == 1, "an item to do")
        assert disk(site, "gamma").read_bytes() == GOLDEN
    finally:
        gamma.host.boot()
    site.until(lambda: site.status()["recreation"]["state"] == "Completed", "the recreation")
    assert disk(site, "gamma").read_bytes() == changed
    assert site.status()["outdated_guests"] == 0


def new_disk(site: Site, name: str) -> Callable[[], bool]:
    """Whether the pool of a host holds a disk or image that it does not hold now."""
    before = site.files(name)
    return lambda: any(file.endswith((".raw", ".part")) for file in site.files(name) - before)


def disk(site: Site, name: str) -> Path:
    """The file of the disk of the only guest on a provider."""
    found = re.findall(r"source file='([^']+)'", read_definition(site, name))
    return Path(found[0])


def read_definition(site: Site, name: str) -> str:
    """The definition of the guest as the host keeps it on its own disk, also while it is off."""
    host = site.benches[name].host
    return (host.folder / "etc" / "qemu" / f"{name}-001.xml").read_text()
