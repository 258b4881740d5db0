"""Driver verbs in a process of their own: jobs on stdin, answers on stdout, one JSON object a line.

A library that hangs is then a kill, and one that crashes an exit code. Secrets come on stdin only. The process takes
jobs until stdin ends, and ends by itself when there were none for a while.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import threading
import traceback
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, TextIO

from rasweb.tether import die_with_parent

from . import DriverError, Refused, open_driver, wire
from .idle import Idle


def perform(job: Mapping[str, Any]) -> Any:
    """Run one verb on one host; return its result as plain data or raise DriverError."""
    verb = job["verb"]
    if verb not in wire.VERBS:
        raise Refused(f"There is no verb {verb!r}.", code="FAILED")
    driver = open_driver(job["kind"], job.get("settings") or {}, job.get("secrets") or {})
    args = wire.arguments(verb, job.get("args") or {})
    if verb == "register":
        return wire.plain(driver.register())
    with driver:
        return wire.plain(getattr(driver, verb)(**args))


def answer(job: Mapping[str, Any]) -> dict[str, Any]:
    """Run one job; every fault becomes an answer."""
    try:
        return {"id": job.get("id"), "ok": True, "result": perform(job)}
    except DriverError as error:
        found = error
    except Exception:  # noqa: BLE001 - a driver runs foreign code; whatever it raises is an answer
        traceback.print_exc()
        found = DriverError("The host's driver failed unexpectedly.", action="Look at the log, then retry.")
    return {"id": job.get("id"), "ok": False, "error": wire.plain_error(found)}


def serve(jobs: TextIO, answers: TextIO) -> None:
    """Run each job as it comes in a thread of its own; return when stdin ended and all have answered."""
    speaking = threading.Lock()
    idle = Idle()

    def work(job: Mapping[str, Any]) -> None:
        with idle.busy():
            line = json.dumps(answer(job))
            with speaking, suppress(BrokenPipeError):  # who asked is gone, and stdin ends
                answers.write(line + "\n")
                answers.flush()

    threads = list[threading.Thread]()
    for line in jobs:
        threads = [thread for thread in threads if thread.is_alive()]
        threads.append(threading.Thread(target=work, args=(json.loads(line),), daemon=True))
        threads[-1].start()
    for thread in threads:
        thread.join()


def main(parent: int) -> None:
    """Serve the process ``parent``, and end with it."""
    die_with_parent(parent)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # a few files for each of many hosts at once
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    serve(sys.stdin, answers)
    os._exit(0)


if __name__ == "__main__":
    main(os.getppid())
