"""Hosts that go away, come back, are full of foreign things or refuse: the others are not harmed, all converges."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.faults.bench import MIB, Bench, digest, is_sparse

pytestmark = pytest.mark.product


def test_one_host_that_is_moved_away_does_not_stop_the_other_four(bench: Bench) -> None:
    bench.product.start()
    bench.add("source", "one", "two", "three", "four")
    bench.add("five", bandwidth=2 * MIB)
    bench.vm("source", data=16, size=64)
    targets = ("one", "two", "three", "four", "five")
    bench.run("template", "create", "win11", "--source", "source:golden", *_each("--target", targets))
    bench.until_moving("five")
    bench.take_away("five")
    bench.until_ok("source", *targets[:4])
    bench.until(lambda: bench.words("win11")["five"][0] == "Not available", "the word Not available")
    assert bench.status("win11")["counts"]["ok"] == 5
    bench.until(lambda: not bench.target("five")["claim"], "the end of the interrupted copy")

    bench.put_back("five")
    answer = bench.until(lambda: _ok(bench.status("win11")), "OK by itself")
    assert answer["distribution"] == "OK"
    content = bench.disk("source")
    for target in answer["targets"]:
        image = Path(target["image"])
        assert image.read_bytes() == content
        assert target["digest"] == digest(content)
        assert is_sparse(image)
    assert "(16777216 bytes) sent" not in "\n".join(bench.notes("five"))
    bench.check()


def test_removals_and_conflicts_touch_nothing_foreign(bench: Bench) -> None:
    bench.product.start()
    bench.add("source", "left", "right", "locked")
    bench.vm("source")
    bench.run("template", "create", "win11", "--source", "source:golden", "--target", "left", "--wait")
    [image] = [name for name in bench.images("left") if not name.startswith(".")]
    bench.run("template", "remove-provider", "win11", "left", "--wait")
    assert bench.images("left") == set()

    taken = bench.write("right", f"images/{image}", b"somebody's")
    written = taken.stat().st_mtime_ns
    answer = bench.product.order(
        "template", "add-provider", "win11", "right", "--wait", "--json", check=False
    )
    assert answer.returncode == 1
    assert bench.words("win11")["right"] == ("Needs update", "Failed to distribute", "PATH_CONFLICT")
    assert (taken.read_bytes(), taken.stat().st_mtime_ns) == (b"somebody's", written)
    assert bench.images("right") == {image}
    taken.rename(taken.with_name("moved-by-hand"))
    bench.leave_alone(taken.with_name("moved-by-hand"))
    assert bench.run("template", "retry", "win11", "right", "--wait")["distribution"] == "OK"

    with _read_only(bench.path("locked") / "images"):
        bench.product.order("template", "add-provider", "win11", "locked", "--wait", check=False)
        assert bench.words("win11")["locked"] == ("Needs update", "Failed to distribute", "PERMISSION")
    assert bench.run("template", "retry", "win11", "--wait")["distribution"] == "OK"

    bench.take_away("locked")
    bench.until(lambda: bench.words("win11")["locked"][0] == "Not available", "the word Not available")
    bench.run("template", "remove-provider", "win11", "locked")
    assert bench.words("win11")["locked"][:2] == ("Not available", "Removing provider")
    bench.put_back("locked")
    bench.until(lambda: not bench.target("locked"), "the owed removal")
    assert bench.images("locked") == set()
    bench.check()


class _read_only:
    """A folder that not even root can write to."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __enter__(self) -> None:
        done = subprocess.run(["chattr", "+i", self._folder], capture_output=True, check=False)
        if done.returncode:
            self._folder.chmod(0o555)

    def __exit__(self, *_: object) -> None:
        subprocess.run(["chattr", "-i", self._folder], capture_output=True, check=False)
        self._folder.chmod(0o755)


def _each(option: str, names: tuple[str, ...]) -> list[str]:
    return [word for name in names for word in (option, name)]


def _ok(answer: dict[str, object]) -> dict[str, object] | None:
    return answer if answer["distribution"] == "OK" else None
