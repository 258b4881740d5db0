"""The engine as a process: a job and commands on standard input, events on standard output. See docs/formats.md."""

from __future__ import annotations

import importlib
import os
import sys
import threading
from queue import Empty, SimpleQueue
from typing import cast

from rasweb.tether import die_with_parent

from .events import End, Event, Failed, encode
from .job import BadJob, Command, Job, Stop, decode_command
from .ports import Drivers
from .run import Run

_TICK = 0.25
_LONGEST_JOB = 64 << 20
_output = 1


def main(parent: int) -> None:
    """Never returns: the process ends at once, whatever threads still hang, and with the process ``parent``."""
    global _output
    _output = os.dup(1)
    os.dup2(2, 1)  # what a library prints goes to the log, not between the events
    die_with_parent(parent)
    events: SimpleQueue[Event | Command] = SimpleQueue()
    status = 0
    try:
        _serve(Job.from_line(sys.stdin.buffer.readline(_LONGEST_JOB)), events)
    except BadJob as error:
        _say(Failed(None, "FAILED", str(error), "", True, False))
        _say(End())
    except BaseException as error:  # noqa: BLE001 - the process says why it ends
        print(f"the engine ends: {type(error).__name__}: {error}", file=sys.stderr)
        status = 1
    sys.stderr.flush()
    os._exit(status)


def _serve(job: Job, queue: SimpleQueue[Event | Command]) -> None:
    run = Run(job, cast(Drivers, importlib.import_module(job.drivers)), queue.put)
    threading.Thread(target=_listen, args=(queue,), name="commands", daemon=True).start()
    run.start()
    while run.tick():
        _drain(run, queue, _TICK)
    while not queue.empty():
        _drain(run, queue, 0)
    _say(End())


def _listen(queue: SimpleQueue[Event | Command]) -> None:
    """Pass commands on; a parent that closes the pipe, or is gone, means stop."""
    for line in sys.stdin.buffer:
        command = decode_command(line)
        if command is not None:
            queue.put(command)
    queue.put(Stop())


def _drain(run: Run, queue: SimpleQueue[Event | Command], timeout: float) -> None:
    try:
        item = queue.get(timeout=timeout) if timeout else queue.get_nowait()
    except Empty:
        return
    if isinstance(item, Command):
        run.obey(item)
    elif not _say(item):
        run.obey(Stop())


def _say(event: Event) -> bool:
    """Tell the parent; False when it does not listen any more."""
    line = memoryview(encode(event))
    try:
        while line:
            line = line[os.write(_output, line) :]
    except BrokenPipeError:
        return False
    return True


if __name__ == "__main__":
    main(os.getppid())
