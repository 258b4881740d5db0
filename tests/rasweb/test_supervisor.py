import os
import threading
import time
from functools import partial

import pytest

from rasweb.supervisor import AlreadyRunning, Child, Lock, Supervisor, rotate
from tests.product import alive


def child(script: str, grace: float = 5.0) -> Child:
    return Child("The test", partial(os.execvp, "sh", ["sh", "-c", script]), grace)


class Ticks:
    """Calls its steps one after the other as each becomes true, then tells the supervisor to end."""

    def __init__(self, *steps) -> None:
        self.steps = list(steps)
        self.deadline = time.monotonic() + 10

    def __call__(self) -> None:
        assert time.monotonic() < self.deadline, "a step did not come true"
        while self.steps and self.steps[0]():
            self.steps.pop(0)
        if not self.steps:
            os.kill(os.getpid(), 15)


@pytest.fixture(autouse=True)
def signals():
    import signal

    changed = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)
    kept = {number: signal.getsignal(number) for number in changed}
    yield
    for number, handler in kept.items():
        signal.signal(number, handler)


def test_a_child_that_ends_is_started_again_after_a_growing_pause(tmp_path):
    dying = child(f"echo x >> {tmp_path}/lives; exit 3")
    began = time.monotonic()
    Supervisor(
        [dying], Ticks(lambda: (tmp_path / "lives").exists() and len((tmp_path / "lives").read_text()) >= 6)
    ).run()
    assert time.monotonic() - began > 0.5 + 1.0


def test_a_signal_ends_all_children():
    children = [child("exec sleep 60"), child("exec sleep 60")]
    Supervisor(children, Ticks(lambda: all(one.process for one in children))).run()
    assert not any(alive(one.process.pid) for one in children)


def test_a_child_that_does_not_listen_is_killed_after_its_grace(tmp_path):
    deaf = child(f"trap '' TERM; echo $$ > {tmp_path}/pid; while :; do sleep 60; done", grace=0.2)
    Supervisor([deaf], Ticks(lambda: (tmp_path / "pid").exists())).run()
    assert not alive(deaf.process.pid)


def test_a_second_signal_kills_at_once(tmp_path):
    deaf = child(f"trap '' TERM; echo $$ > {tmp_path}/pid; while :; do sleep 60; done", grace=60)
    impatient = threading.Timer(0.4, os.kill, (os.getpid(), 15))
    Supervisor([deaf], Ticks(lambda: (tmp_path / "pid").exists(), lambda: impatient.start() is None)).run()
    assert not alive(deaf.process.pid)


def test_the_lock_names_its_holder_and_is_free_when_the_holder_is_gone(tmp_path):
    first = Lock(tmp_path / "lock")
    first.write("process 12, http://localhost")
    with pytest.raises(AlreadyRunning) as refused:
        Lock(tmp_path / "lock")
    assert refused.value.holder == "process 12, http://localhost"
    first._file.close()
    Lock(tmp_path / "lock").write("")


def test_a_log_file_is_put_aside_only_when_it_is_large(tmp_path):
    log = tmp_path / "a.log"
    rotate(log, 10)
    log.write_text("short")
    rotate(log, 10)
    assert log.exists()
    log.write_text("long" * 10)
    rotate(log, 10)
    assert (log.exists(), (tmp_path / "a.log.1").read_text()) == (False, "long" * 10)
