"""A really started product with hosts of its own, and what has to hold of it whenever all has settled."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from blake3 import blake3

from tests.product import ROOT, Product, children, wait_for

MIB = 1 << 20
LEAF = 64 << 10
SETTLED_SECONDS = 90.0  # never reached on a machine that is not overloaded
SHORT = {
    "RASWEB_CHECK_INTERVAL": "2",
    "RASWEB_LEASE_SECONDS": "4",
    "RASWEB_RETRY_DELAYS": "1,2,3",
    "RASWEB_STALL_SECONDS": "5",
    "RASWEB_WORKERS": "4",
}
FOREIGN = {
    "notes.txt": b"not ours",
    "images/theirs-v1.raw": b"\1" * 5000,
    "guests/theirs/disk0.raw": b"\2" * 5000,
}


class Bench:
    """Commands go through the command line; rows are read straight from the database's file."""

    def __init__(self, product: Product, root: Path) -> None:
        self.product = product
        self.root = root
        self.contents: dict[tuple[str, int], bytes] = {}
        self._foreign: dict[Path, tuple[bytes, int]] = {}
        root.mkdir()

    # Orders

    def run(self, *args: str) -> Any:
        """Run a command that has to succeed; its JSON."""
        return json.loads(self.product.order(*args, "--json").stdout)

    def refused(self, *args: str) -> dict[str, str]:
        """Run a command that has to fail with one sentence; its error."""
        result = self.product.order(*args, "--json", check=False)
        assert result.returncode == 1, result.stdout
        assert "Traceback" not in result.stderr
        assert len(result.stderr.splitlines()) == 1, result.stderr
        return dict(json.loads(result.stdout)["error"])

    def status(self, template: str) -> dict[str, Any]:
        return dict(self.run("template", "status", template))

    def words(self, template: str) -> dict[str, tuple[str, str, str | None]]:
        """State, Progress and error code of each target."""
        return {
            target["provider"]: (target["state"], target["progress"], (target["error"] or {}).get("code"))
            for target in self.status(template)["targets"]
        }

    # Hosts

    def add(self, *names: str, kind: str = "directory", **limits: int) -> None:
        """Register hosts, and put foreign files on them."""
        options = [*_options(limits), *(["--set", "vms=0"] if kind == "simulator" else [])]
        for name in names:
            self.path(name).mkdir()
            path = f"path={self.path(name)}"
            self.product.order("provider", "add", name, "--kind", kind, "--set", path, *options)
        for name in names if kind == "directory" else ():
            self.leave_alone(*(self.write(name, file, content) for file, content in FOREIGN.items()))

    def add_simulated(self, name: str, size: int, **limits: int) -> None:
        """Register a simulator with the shut-off VM ``sample-1``: a quarter of its disk of ``size`` MiB is data.

        Its faults hold a step for as long as a test wants, however fast the machine is.
        """
        settings = [f"path={self.path(name)}", "vms=1", f"size_mib={size}"]
        words = [word for setting in settings for word in ("--set", setting)]
        self.path(name).mkdir()
        self.product.order("provider", "add", name, "--kind", "simulator", *words, *_options(limits))
        self.product.order("provider", "check", name)

    def path(self, host: str) -> Path:
        return self.root / host

    def write(self, host: str, file: str, content: bytes) -> Path:
        path = self.path(host) / file
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
        return path

    def leave_alone(self, *paths: Path) -> None:
        """From now on these files have to stay exactly as they are."""
        self._foreign |= {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in paths}

    def take_away(self, host: str) -> None:
        self.path(host).rename(self.root / f".away-{host}")

    def put_back(self, host: str) -> None:
        (self.root / f".away-{host}").rename(self.path(host))

    def faults(self, host: str, words: str) -> None:
        """Switch the faults of a simulator."""
        fresh = self.root / f".faults-{host}"
        fresh.write_text(words)
        fresh.rename(self.path(host) / "faults")

    def vm(self, host: str, name: str = "golden", *, data: int = 8, size: int = 24) -> None:
        """A shut-off VM with ``data`` MiB of bytes in two runs with holes around them, on a disk of ``size`` MiB."""
        folder = self.path(host) / "vms" / name
        folder.mkdir()
        (folder / "vm.json").write_text(json.dumps({"memory_mib": 2048, "vcpus": 2, "network": ""}))
        half = data * MIB // 2
        with (folder / "disk0.raw").open("wb") as disk:
            disk.truncate(size * MIB)
            for start in (MIB, size * MIB - half):
                disk.seek(start)
                disk.write(os.urandom(half))
        self.product.order("provider", "check", host)

    def disk(self, host: str, vm: str = "golden") -> bytes:
        return (self.path(host) / "vms" / vm / "disk0.raw").read_bytes()

    def index(self, host: str) -> dict[str, Any]:
        """What a simulator has written down."""
        return dict(json.loads((self.path(host) / "simulator.json").read_text()))

    def blob(self, host: str, ref: str) -> Path:
        return self.path(host) / "blobs" / ref

    def images(self, host: str) -> set[str]:
        """All files in a directory host's folder for images, hidden ones too, without the foreign ones."""
        folder = self.path(host) / "images"
        return {path.name for path in folder.iterdir() if path not in self._foreign}

    # What the rows say

    def rows(self, sql: str, *values: object) -> list[sqlite3.Row]:
        with sqlite3.connect(
            f"file:{self.product.data_dir}/rasweb.sqlite3?mode=ro", uri=True, timeout=20
        ) as db:
            db.row_factory = sqlite3.Row
            found = db.execute(sql, values).fetchall()
        db.close()
        return found

    def target(self, host: str) -> dict[str, Any]:
        """The row of the only template's target on a host; empty when there is none."""
        found = self.rows(
            "SELECT t.* FROM templates_app_distributiontarget t "
            "JOIN providers_app_provider p ON p.id = t.provider_id WHERE p.name = ?",
            host,
        )
        return dict(found[0]) if found else {}

    def phase(self, host: str) -> str:
        return str(self.target(host).get("phase", ""))

    def notes(self, host: str) -> list[str]:
        """The timeline of a host's targets, newest first."""
        sql = "SELECT note FROM templates_app_event WHERE provider_name = ? AND kind = 'distributiontarget'"
        return [row["note"] for row in self.rows(f"{sql} ORDER BY id DESC", host)]

    def until(
        self, condition: Callable[[], Any], what: str, seconds: float = SETTLED_SECONDS, pause: float = 0.05
    ) -> Any:
        try:
            return wait_for(condition, seconds, what, pause)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self._situation()}") from None

    def until_phase(self, phase: str, *hosts: str, seconds: float = SETTLED_SECONDS) -> None:
        self.until(lambda: all(self.phase(host) == phase for host in hosts), f"{phase} on {hosts}", seconds)

    def until_ok(self, *hosts: str, seconds: float = SETTLED_SECONDS) -> None:
        self.until_phase("installed", *hosts, seconds=seconds)

    def until_moving(self, host: str, least: int = 0) -> int:
        """Wait for a copy at work that has proven more than ``least`` bytes on a host; how many."""

        def proven() -> int:
            row = self.target(host)
            moving = row.get("phase") == "copying" and row["claim"] and row["bytes_done"] > least
            return int(row["bytes_done"]) if moving else 0

        return int(self.until(proven, f"more than {least} proven bytes on {host}"))

    def _situation(self) -> str:
        rows = self.rows(
            "SELECT p.name, t.phase, t.desired, t.bytes_done, t.attempt, t.error_code, t.error_text, p.reachability "
            "FROM templates_app_distributiontarget t JOIN providers_app_provider p ON p.id = t.provider_id"
        )
        return "\n".join([*(str(tuple(row)) for row in rows), self.product.output[-3000:]])

    # Processes

    def holder(self, kind: str) -> int:
        """The process that holds a claim on a row of this kind; waits for it."""

        def find() -> int:
            owners = self.rows(f"SELECT owner FROM templates_app_{kind} WHERE claim NOT NULL")
            return int(owners[0]["owner"].split("/")[1]) if owners else 0

        return int(self.until(find, f"work on a {kind}"))

    def engine(self, host: str) -> int:
        """The engine that copies to a host now."""

        def find() -> int:
            owner = self.target(host).get("owner", "")
            workers = [int(owner.split("/")[1])] if owner else []
            return next((pid for worker in workers for pid in children(worker) if _is_engine(pid)), 0)

        return int(self.until(find, f"an engine for {host}"))

    def second_worker_set(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, str(ROOT / "manage.py"), "worker"], env=self.product.env)

    @staticmethod
    def end(process: subprocess.Popen[bytes]) -> int:
        process.send_signal(signal.SIGTERM)
        return process.wait(20)

    # What has to hold

    def check(self) -> None:
        """The invariants, once nothing moves any more."""
        self.until(lambda: not self._claims(), "the end of all claims")
        self._foreign_files_are_as_they_were()
        for row in self.rows(_IMAGES):
            _is_what_was_sealed(row, self._file_of(row))
        for host in self.rows("SELECT * FROM providers_app_provider"):
            path = Path(json.loads(host["settings"])["path"])
            look = self._nothing_left_over if host["kind"] == "directory" else self._nothing_staged
            look(path, host["id"])
        installed = self.rows("SELECT * FROM templates_app_distributiontarget WHERE phase = 'installed'")
        assert all(row["verified_at"] and row["installed_version_id"] for row in installed)
        assert "Traceback" not in self.product.output, self.product.output

    def _claims(self) -> Iterable[str]:
        tables = ("template", "distributiontarget", "guestvm", "recreaterun")
        return [
            name for name in tables if self.rows(f"SELECT 1 FROM templates_app_{name} WHERE claim NOT NULL")
        ]

    def _foreign_files_are_as_they_were(self) -> None:
        for path, (content, written) in self._foreign.items():
            assert (path.read_bytes(), path.stat().st_mtime_ns) == (content, written), path

    def _file_of(self, row: sqlite3.Row) -> Path:
        path = Path(json.loads(row["settings"])["path"])
        return path / row["ref"] if row["kind"] == "directory" else path / "blobs" / row["ref"]

    def _nothing_left_over(self, path: Path, provider: int) -> None:
        names = [row["name"] for row in self._images_of(provider)]
        expected = {*names, *(f".{name}.rasweb.json" for name in names)}
        assert {file.name for file in (path / "images").iterdir() if file not in self._foreign} == expected
        guests = {row["name"] for row in self.rows(f"{_GUESTS} WHERE provider_id = ?", provider)}
        assert {folder.name for folder in (path / "guests").iterdir()} == guests | {"theirs"}
        kept = self.rows("SELECT 1 FROM templates_app_template WHERE phase = 'maintenance'")
        assert kept or not [folder for folder in (path / "vms").iterdir() if "maintenance" in folder.name]

    def _nothing_staged(self, path: Path, provider: int) -> None:
        index = json.loads((path / "simulator.json").read_text())
        assert not index["staged"]
        assert not index["making"]
        assert {image["name"] for image in index["images"]} == {
            row["name"] for row in self._images_of(provider)
        }

    def _images_of(self, provider: int) -> list[sqlite3.Row]:
        return self.rows(f"{_IMAGES} WHERE p.id = ?", provider)


_IMAGES = (
    "SELECT i.*, v.disks, p.kind, p.settings FROM templates_app_publishedimage i "
    "JOIN templates_app_templateversion v ON v.id = i.version_id "
    "JOIN templates_app_distributiontarget t ON t.id = i.target_id "
    "JOIN providers_app_provider p ON p.id = t.provider_id"
)
_GUESTS = "SELECT * FROM templates_app_guestvm"


def _is_what_was_sealed(row: sqlite3.Row, file: Path) -> None:
    sealed = json.loads(row["disks"])[row["disk"]]["digest"]
    assert row["digest"] == sealed == digest(file.read_bytes()), file


def digest(content: bytes) -> str:
    """The digest of a disk, computed here from its description: BLAKE3 over the leaves' digests and the size."""
    leaves = b"".join(blake3(content[at : at + LEAF]).digest() for at in range(0, len(content), LEAF))
    return blake3(leaves + len(content).to_bytes(8, "little")).hexdigest()


def is_sparse(file: Path) -> bool:
    found = file.stat()
    return found.st_blocks * 512 < found.st_size - 4 * MIB


def _is_engine(pid: int) -> bool:
    try:
        return b"templates_app.transfer" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def _options(limits: dict[str, int]) -> list[str]:
    return [word for name, value in limits.items() for word in (f"--{name}", str(value))]
