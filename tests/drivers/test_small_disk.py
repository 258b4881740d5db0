"""A disk that is really full."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.drivers.benches import BENCHES

ALONE = ["unshare", "--mount", "--map-root-user", "sh", "-c"]
MOUNT = 'mount -t tmpfs -o size=2m tmpfs "$1"'


@pytest.mark.parametrize("kind", sorted(BENCHES))
def test_a_full_disk_is_said_and_leaves_only_what_is_whole(kind: str, tmp_path: Path) -> None:
    if subprocess.run([*ALONE, MOUNT, "sh", str(tmp_path)], capture_output=True, check=False).returncode:
        pytest.skip("this machine lets nobody mount; the same is shown with a disk that is said to be full")
    command = f'{MOUNT} && exec "$2" -m tests.drivers.small_disk "$3" "$1"'
    done = subprocess.run(
        [*ALONE, command, "sh", str(tmp_path), sys.executable, kind],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=Path(__file__).parents[2],
    )
    assert (done.returncode, done.stderr) == (0, "")
