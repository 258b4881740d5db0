"""One ``manage.py`` that stays: a test's many commands cost one start of Django instead of one each."""

from __future__ import annotations

import contextlib
import io
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import django

from rasweb import processes
from rasweb.loading import loading

ROOT = Path(__file__).resolve().parent.parent


class Console:
    """Commands one after the other in a process of its own, each answered as its own process would have been."""

    def __init__(self, env: Mapping[str, str], within: Sequence[str] = ()) -> None:
        self._process = subprocess.Popen(
            processes.tethered([*within, sys.executable, "-m", "tests.console"]),
            cwd=ROOT,
            env=env,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    @property
    def pid(self) -> int:
        return self._process.pid

    def run(self, *args: str) -> subprocess.CompletedProcess[str]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(args) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        assert answer, f"the console ended during: {' '.join(args)}"
        return subprocess.CompletedProcess(args, **json.loads(answer))

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


def serve() -> None:
    """Answer command lines from standard input, as long as there are any."""
    answers = sys.stdout
    with loading():
        django.setup()
    for line in sys.stdin:
        print(json.dumps(_answer(json.loads(line))), file=answers, flush=True)


def _answer(args: list[str]) -> dict[str, object]:
    from django.core.management import execute_from_command_line

    out, err = io.StringIO(), io.StringIO()
    status: object = 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            execute_from_command_line(["manage.py", *args])
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else int(end.code is not None)
    return {"returncode": status, "stdout": out.getvalue(), "stderr": err.getvalue()}


if __name__ == "__main__":
    serve()
