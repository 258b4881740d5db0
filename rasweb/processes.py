"""Child processes that never outlive their parent. Standard library only.

Every process the product starts is *tethered*: the kernel kills it when the thread that started it ends, so that
``kill -9`` of a parent leaves no orphan at work. A tether belongs to the starting **thread**: start children from
a thread that stays until they have ended.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from rasweb import tether

_ROOT = Path(__file__).resolve().parent.parent
_KEPT = ("PATH", "HOME", "TMPDIR", "TZ")


def tethered(argv: Sequence[str]) -> list[str]:
    """The command line that runs ``argv`` as a child which dies with the calling process."""
    return [sys.executable, "-I", "-S", tether.__file__, str(os.getpid()), *argv]


def clean_environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment for foreign and heavy code: where programs lie, plain English messages, and ``extra``.

    Nothing of the product's own settings, of the user's shell, of proxies or of loaders is handed on.
    """
    kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
    return {"PATH": os.defpath, **kept, "LC_ALL": "C.UTF-8", **(extra or {})}


def start(
    argv: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    stdin: int | IO[Any] | None = subprocess.DEVNULL,
    stdout: int | IO[Any] | None = None,
    stderr: int | IO[Any] | None = None,
) -> subprocess.Popen[bytes]:
    """Start ``argv`` tethered, in a session of its own, with a clean environment unless ``env`` says otherwise."""
    return _started(tethered(argv), env, stdin=stdin, stdout=stdout, stderr=stderr)


def start_module(
    module: str,
    *,
    env: Mapping[str, str] | None = None,
    stdin: int | IO[Any] | None = subprocess.DEVNULL,
    stdout: int | IO[Any] | None = None,
    stderr: int | IO[Any] | None = None,
    bufsize: int = -1,
) -> subprocess.Popen[bytes]:
    """Start a module of the product in the same way.

    Its ``main`` is called with the pid of this process, and has to tie itself to it: so no program has to run in front
    of it, which takes as long as Python itself.
    """
    argv = [sys.executable, "-s", "-c", f"from {module} import main; main({os.getpid()})"]
    return _started(argv, env, cwd=_ROOT, stdin=stdin, stdout=stdout, stderr=stderr, bufsize=bufsize)


def _started(argv: Sequence[str], env: Mapping[str, str] | None, **rest: Any) -> subprocess.Popen[bytes]:
    clean = dict(clean_environment() if env is None else env)
    return subprocess.Popen(argv, env=clean, start_new_session=True, **rest)


def stop(process: subprocess.Popen[bytes], grace: float) -> int:
    """Ask a started process to end; after ``grace`` seconds kill its whole session. Returns its exit status.

    Only the process itself gets SIGTERM: what it started is its own to end.
    """
    process.terminate()
    try:
        return process.wait(grace)
    except subprocess.TimeoutExpired:
        return kill(process)


def kill(process: subprocess.Popen[bytes]) -> int:
    """Kill a process from :func:`start` and all of its session at once. Returns its exit status."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    return process.wait()
