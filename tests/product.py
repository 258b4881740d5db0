"""The really started product for tests: ``manage.py up`` as processes of its own, on a data folder of its own."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from rasweb import processes
from tests import prepared
from tests.console import Console

T = TypeVar("T")

ROOT = Path(__file__).resolve().parent.parent
START_SECONDS = 60.0  # never reached on a machine that is not overloaded
STOP_SECONDS = 20.0
COMMAND_SECONDS = 120.0


def wait_for(
    condition: Callable[[], T], seconds: float = 10.0, what: str = "the condition", pause: float = 0.05
) -> T:
    """Look at ``condition`` every ``pause`` seconds until it is true; return what it returned.

    Fails after ``seconds``. Where a look takes long, a long pause leaves the processor to what is waited for.
    """
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"{what} did not come true within {seconds} s"
        time.sleep(pause)
    return value


def children(pid: int) -> list[int]:
    """The living children of a process, oldest first."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            state, parent = _state(int(entry.name))
            if parent == pid and state not in "ZX":
                found.append(int(entry.name))
    return sorted(found)


def alive(pid: int) -> bool:
    return _state(pid)[0] not in "ZX"


def _state(pid: int) -> tuple[str, int]:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return "X", 0
    return fields[0], int(fields[1])


@dataclass
class Product:
    """One installation: ``start``, use ``base_url`` and ``run``, ``stop``; ``close`` leaves nothing behind.

    ``within`` are the words before each command, of a program that starts it in surroundings of its own. ``first``: the
    first start does all that a first start does, instead of finding it done.
    """

    data_dir: Path
    env: dict[str, str] = field(default_factory=dict)
    within: Sequence[str] = ()
    first: bool = False
    base_url: str = ""
    process: subprocess.Popen[bytes] | None = None
    _console: Console | None = None

    def __post_init__(self) -> None:
        own = ("RASWEB_", "DJANGO_SETTINGS_MODULE")  # those of the test run are not the product's
        clean = {name: value for name, value in os.environ.items() if not name.startswith(own)}
        self.env = {**clean, "RASWEB_DATA_DIR": str(self.data_dir), "RASWEB_PORT": "0", **self.env}

    @property
    def output(self) -> str:
        """All that ``manage.py up`` and its children have written so far."""
        path = self._output_path
        return path.read_text(errors="replace") if path.exists() else ""

    @property
    def _output_path(self) -> Path:
        return self.data_dir.with_name(f"{self.data_dir.name}.output")

    def start(self, *args: str) -> Product:
        """Start it and wait until it serves."""
        before = len(self.output)
        if not (self.first or self.within):
            prepared.into(self.data_dir, self.env)
        with self._output_path.open("ab") as output:
            argv = processes.tethered([*self.within, sys.executable, str(ROOT / "manage.py"), "up", *args])
            self.process = subprocess.Popen(
                argv,
                env=self.env,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        ready = wait_for(lambda: self._ready(before), START_SECONDS, "serving")
        self.base_url = ready[1]
        self.env["RASWEB_PORT"] = ready[2]  # the same address after a restart
        return self

    def _ready(self, before: int) -> re.Match[str] | None:
        assert self.process is not None
        assert self.process.poll() is None, f"manage.py up ended:\n{self.output[before:]}"
        return re.search(r"rasweb is ready: (http://\S+?:(\d+))/", self.output[before:])

    def run(self, *args: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run ``manage.py`` on this installation."""
        result = subprocess.run(
            [*self.within, sys.executable, str(ROOT / "manage.py"), *args],
            env=self.env,
            text=True,
            capture_output=True,
            timeout=COMMAND_SECONDS,
            check=False,
        )
        return _checked(result, args) if check else result

    def order(self, *args: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """As ``run``, in one process that stays: for commands that are not what is tested."""
        if self._console is None:
            self._console = Console({"DJANGO_SETTINGS_MODULE": "rasweb.settings", **self.env}, self.within)
        result = self._console.run(*args)
        return _checked(result, args) if check else result

    def get(self, path: str, seconds: float = 5.0) -> int:
        """The status of an ordinary GET; 0 while nobody answers."""
        try:
            with urllib.request.urlopen(self.base_url + path, timeout=seconds) as response:
                return int(response.status)
        except urllib.error.HTTPError as error:
            return error.code
        except OSError:
            return 0

    def stop(self) -> int:
        """End it as Ctrl-C or a service manager would; returns the exit status."""
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(STOP_SECONDS)

    def kill(self, *pids: int) -> None:
        """``kill -9``: these processes, or, without any, the supervisor."""
        for pid in pids or [self.pid]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if not pids and self.process is not None:
            self.process.wait(STOP_SECONDS)

    def restart(self) -> Product:
        if self.process is not None and self.process.poll() is None:
            self.stop()
        return self.start()

    def close(self) -> None:
        if self._console is not None:
            self._console.close()
        if self.process is not None and self.process.poll() is None:
            self.kill()
        wait_for(lambda: not self.pids(), STOP_SECONDS, "the end of all processes")

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def child(self, name: str) -> int:
        """The main process of ``web`` or ``worker``; waits for it."""
        mark = {"web": "rasweb web", "worker": "rasweb workers"}[name]

        def find() -> int:
            return next((pid for pid in children(self.pid) if mark in _words(pid)), 0)

        return wait_for(find, START_SECONDS, f"the {name} process")

    def pids(self) -> list[int]:
        """All living processes that were given this data folder, whoever their parent is by now. Not the console."""
        console = self._console.pid if self._console else 0
        mark = f"RASWEB_DATA_DIR={self.data_dir}".encode()
        found = []
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                if entry.name.isdigit() and mark in (entry / "environ").read_bytes().split(b"\0"):
                    found.append(int(entry.name))
        return [pid for pid in found if alive(pid) and pid not in (os.getpid(), console)]


def _checked(
    result: subprocess.CompletedProcess[str], args: Sequence[str]
) -> subprocess.CompletedProcess[str]:
    assert result.returncode == 0, f"manage.py {' '.join(args)}:\n{result.stdout}{result.stderr}"
    return result


def _words(pid: int) -> list[str]:
    """The name and the command line of a process."""
    with contextlib.suppress(OSError):
        process = Path(f"/proc/{pid}")
        return [(process / "comm").read_text().strip(), *(process / "cmdline").read_text().split("\0")]
    return []
