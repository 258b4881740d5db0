"""What the first start of an installation makes and takes long: once in a test run, then copied.

That is the migrated database, with an identity of its own in each copy, and the static files.
"""

from __future__ import annotations

import fcntl
import shutil
import sqlite3
import subprocess
import sys
import uuid
from collections.abc import Mapping
from pathlib import Path

FOLDER: Path | None = None  # of the test run, shared by its processes
DATABASE, STAMP, STATIC = "rasweb.sqlite3", "static.stamp", "static"
_FIRST_START = """
from django.core.management import call_command
from rasweb import assets
call_command("migrate", interactive=False, verbosity=0)
assets.collect()
"""


def into(data_dir: Path, environment: Mapping[str, str]) -> None:
    """Fill a data folder that is not there yet; outside a test run leave all to the first start."""
    if FOLDER is None or data_dir.exists():
        return
    with FOLDER.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (FOLDER / STAMP).exists():
            _make(FOLDER, environment)
    shutil.copytree(FOLDER / STATIC, data_dir / STATIC)
    for name in (STAMP, DATABASE):
        shutil.copy2(FOLDER / name, data_dir / name)
    with sqlite3.connect(data_dir / DATABASE) as database:
        database.execute("UPDATE providers_app_installation SET id = ?", [uuid.uuid4().hex])
    database.close()


def _make(folder: Path, environment: Mapping[str, str]) -> None:
    command = [sys.executable, "manage.py", "shell", "-v0", "-c", _FIRST_START]
    plain = {
        name: value for name, value in environment.items() if not name.startswith(("RASWEB_", "DJANGO_"))
    }
    subprocess.run(
        command,
        env={**plain, "RASWEB_DATA_DIR": str(folder)},
        cwd=Path(__file__).resolve().parent.parent,
        check=True,
    )
