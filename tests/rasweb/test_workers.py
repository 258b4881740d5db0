import threading
import time
from datetime import timedelta

import pytest
from django.db import OperationalError, connection
from django.utils import timezone
from django_q.models import Failure, OrmQ, Task

from rasweb import pulse, workers
from rasweb.pulse import Beat
from rasweb.queue import Broker
from rasweb.workers import Loop, Watch
from tests.product import wait_for


@pytest.fixture
def board(monkeypatch):
    """Beats of this test only."""
    monkeypatch.setattr(pulse, "_board", [0.0] * len(pulse._board))
    return pulse._board


class Clock:
    """A watch, and the seconds that passed for it."""

    def __init__(self, board) -> None:
        self.sent = 0
        self.board = board
        self.now = time.monotonic()
        self.watch = Watch(self.send, every=60, limit=90)

    def send(self) -> None:
        self.sent += 1

    def passes(self, seconds: int, some_idle: bool = True, pusher: bool = True, canary: bool = True) -> str:
        for _ in range(seconds):
            self.now += 1
            if pusher:
                self.board[Beat.PUSHER] = self.now
            if canary and self.sent:
                self.board[Beat.CANARY] = self.now
            if fault := self.watch.fault(self.now, some_idle):
                return fault
        return ""


def test_a_canary_is_sent_each_minute_and_a_set_that_answers_is_sound(board):
    clock = Clock(board)
    assert clock.passes(600) == ""
    assert 9 <= clock.sent <= 11


def test_a_set_that_does_no_task_although_a_worker_is_free_is_at_fault(board):
    clock = Clock(board)
    assert clock.passes(80, canary=False) == ""
    assert "a worker was free" in clock.passes(20, canary=False)


def test_a_set_whose_workers_are_all_at_work_is_sound(board):
    clock = Clock(board)
    assert clock.passes(3600, some_idle=False, canary=False, pusher=False) == ""


def test_a_queue_that_is_not_read_is_a_fault(board):
    assert "was not read" in Clock(board).passes(100, pusher=False)


calls: list[float] = []


def fails_twice() -> None:
    calls.append(time.monotonic())
    if len(calls) < 3:
        raise ValueError("not yet")


def test_a_loop_goes_on_after_faults_and_calls_less_often_meanwhile(caplog):
    calls.clear()
    loop = Loop(f"{__name__}.fails_twice", 0.01)
    assert [loop.once() for _ in range(3)] == [False, False, True]
    assert caplog.text.count("failed and will be called again") == 2


def test_a_loop_that_can_not_be_imported_is_logged(caplog):
    assert not Loop("rasweb.no_such.thing", 1).once()
    assert "rasweb.no_such.thing failed" in caplog.text


released = threading.Event()


def waits() -> None:
    released.wait(10)


def test_a_call_that_does_not_return_is_noticed():
    released.clear()
    loop = Loop(f"{__name__}.waits", 1)
    assert not loop.hangs(0)
    thread = threading.Thread(target=loop.once)
    thread.start()
    wait_for(lambda: loop.hangs(0.01))
    assert not loop.hangs(60)
    released.set()
    thread.join()
    assert not loop.hangs(0)


@pytest.mark.django_db
def test_messages_a_former_set_had_taken_are_dropped():
    now = timezone.now()
    OrmQ.objects.create(key="rasweb", payload="taken", lock=now + timedelta(days=6))
    OrmQ.objects.create(key="rasweb", payload="waiting", lock=now)
    workers.forget_taken()
    assert [message.payload for message in OrmQ.objects.all()] == ["waiting"]


@pytest.mark.django_db
def test_old_failures_of_the_queue_are_forgotten():
    now = timezone.now()
    for name, age in (("old", 8), ("new", 1)):
        stopped = now - timedelta(days=age)
        Task.objects.create(id=name, name=name, func="x", started=stopped, stopped=stopped, success=False)
    workers.tidy()
    assert [failure.name for failure in Failure.objects.all()] == ["new"]


@pytest.mark.django_db
def test_a_database_that_fails_does_not_end_the_reading_of_the_queue(monkeypatch, caplog, board):
    monkeypatch.setattr("rasweb.queue.PAUSE_SECONDS", 0)

    def locked(execute, sql, params, many, context):
        raise OperationalError("database is locked")

    with connection.execute_wrapper(locked):
        assert Broker("rasweb").dequeue() is None
    assert "database is locked" in caplog.text
    assert board[Beat.PUSHER] > 0
