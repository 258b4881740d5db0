"""The disk that holds the manifests, really full."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from templates_app.transfer.digest import DIGEST, Table
from templates_app.transfer.faults import Fault
from templates_app.transfer.manifest import scratch_store, write_manifest
from templates_app.transfer.plan import DataMap
from tests.drivers.test_small_disk import ALONE, MOUNT

LEAF, LEAVES = 64 << 10, 4096
NEEDS: dict[str, Callable[[Path], object]] = {
    "digests that are being learned": lambda folder: scratch_store(folder, LEAVES * DIGEST).tobytes(),
    "a manifest": lambda folder: write_manifest(folder, table()),
}


def table() -> Table:
    digests = memoryview(bytearray(os.urandom(LEAVES * DIGEST)))
    return Table(DataMap([(0, LEAVES)], LEAVES * LEAF, LEAF), digests, known=True)


@pytest.mark.parametrize("what", NEEDS)
def test_a_full_disk_is_said_instead_of_ending_the_process(what: str, tmp_path: Path) -> None:
    if subprocess.run([*ALONE, MOUNT, "sh", str(tmp_path)], capture_output=True, check=False).returncode:
        pytest.skip("this machine lets nobody mount")
    command = f'{MOUNT} && exec "$2" -m tests.transfer.test_full_disk "$3" "$1"'
    done = subprocess.run(
        [*ALONE, command, "sh", str(tmp_path), sys.executable, what],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=Path(__file__).parents[2],
    )
    assert (done.returncode, done.stdout.strip()) == (0, "NO_SPACE []"), done.stderr


def main(what: str, folder: Path) -> None:
    with (folder / "others").open("wb") as others:
        os.posix_fallocate(others.fileno(), 0, (2 << 20) - LEAVES * DIGEST // 2)
    try:
        NEEDS[what](folder / "manifests")
    except Fault as fault:
        print(fault.code, list((folder / "manifests").iterdir()))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
