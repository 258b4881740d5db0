"""``manage.py up`` for real, with test tasks in place of the product's own."""

import os
import signal
import sqlite3
import time
from pathlib import Path

import pytest

from tests.product import ROOT, Product, alive, children, wait_for

pytestmark = pytest.mark.product

SENTINEL, WORKER = 0, 1


def installation(folder: Path) -> Product:
    env = {
        "DJANGO_SETTINGS_MODULE": "tests.rasweb.bare.settings",
        "RASWEB_WORKERS": "2",
        "PYTHONPATH": str(ROOT),
    }
    return Product(folder / "data", env)


@pytest.fixture
def bare(tmp_path):
    product = installation(tmp_path)
    yield product
    product.close()


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    """One that is started once and has to survive what each test does to it."""
    product = installation(tmp_path_factory.mktemp("running"))
    yield product.start()
    product.close()


def enqueue(product: Product, task: str, *args) -> None:
    code = f"from django_q.tasks import async_task; async_task('tests.rasweb.bare.tasks.{task}', *{args!r})"
    product.order("shell", "-v0", "-c", code)


def lines(product: Product, name: str) -> list[str]:
    path = product.data_dir / name
    return path.read_text().splitlines() if path.exists() else []


def sentinel(product: Product) -> int:
    """The sentinel of the present worker set, once its processes run."""

    def find() -> int:
        return next((pid for pid in children(product.child("worker")) if len(children(pid)) == 4), 0)

    return wait_for(find, 20, "the worker set")


def works(product: Product, text: str) -> None:
    enqueue(product, "mark", text)
    wait_for(lambda: any(text in line for line in lines(product, "marked")), 30, f"the task {text}")


def test_it_serves_does_tasks_and_stops_when_told(bare):
    bare.start()
    assert (bare.get("/healthz"), bare.get("/readyz")) == (200, 200)
    assert f"{bare.base_url}/setup/" in bare.output
    wait_for(lambda: lines(bare, "looked"), what="the loop")
    works(bare, "first")
    began = time.monotonic()
    assert bare.stop() == 0
    assert time.monotonic() - began < 8
    wait_for(lambda: not bare.pids(), what="the end of all")
    assert "Traceback" not in bare.output


def test_a_second_start_on_the_same_data_is_one_sentence(running):
    second = running.run("up", check=False)
    assert second.returncode == 1
    assert second.stderr.count("\n") == 1
    assert f"already runs on this data folder (process {running.pid}, {running.base_url})" in second.stderr


def test_a_taken_port_is_one_sentence(running, tmp_path):
    other = installation(tmp_path)
    second = other.run("up", "--port", running.base_url.rpartition(":")[2], check=False)
    assert second.returncode == 1
    assert "Address already in use" in second.stderr.splitlines()[-1]


@pytest.mark.parametrize("victim", ["main", "sentinel", "idle worker", "monitor", "pusher"])
def test_a_killed_process_of_the_worker_set_ends_it_and_a_new_one_works(running, victim):
    old = sentinel(running)
    members = children(old)
    pid = {
        "main": running.child("worker"), "sentinel": old, "idle worker": members[0],
        "monitor": members[-2], "pusher": members[-1],
    }[victim]  # fmt: skip
    running.kill(pid)
    wait_for(lambda: not any(alive(one) for one in [old, *members]), what="the end of the old set")
    works(running, f"after {victim}")


def test_a_worker_set_that_was_told_to_end_is_followed_by_one_that_was_not(running):
    old = running.child("worker")
    os.kill(old, signal.SIGTERM)
    wait_for(lambda: not alive(old), what="the end of the old set")
    new = sentinel(running)
    works(running, "after the word")
    works(running, "and again")
    assert alive(new)


def test_a_killed_web_process_comes_back_on_the_same_address(running):
    running.kill(running.child("web"))
    wait_for(lambda: running.get("/healthz") == 200, 20, "serving again")


def test_everything_dies_with_a_killed_supervisor_and_a_restart_works(bare):
    bare.start()
    sentinel(bare)
    bare.kill()
    wait_for(lambda: not bare.pids(), what="the end of all")
    bare.start()
    works(bare, "after")


def test_a_killed_worker_takes_the_processes_it_started_with_it(running):
    enqueue(running, "with_child")
    child = int(wait_for(lambda: lines(running, "child"))[0].split()[1])
    worker = int(lines(running, "child")[0].split()[0])
    assert alive(child)
    running.kill(worker)
    wait_for(lambda: not alive(child))


def test_running_work_is_told_to_put_down_what_it_holds(bare):
    bare.start()
    enqueue(bare, "long", 60)
    wait_for(lambda: lines(bare, "began"))
    bare.stop()
    assert len(lines(bare, "put down")) == 1


def test_a_worker_that_does_not_listen_is_killed_in_time(bare):
    bare.start()
    enqueue(bare, "deaf", 60)
    wait_for(lambda: lines(bare, "began"))
    began = time.monotonic()
    bare.stop()
    assert 1.5 < time.monotonic() - began < 6
    wait_for(lambda: not bare.pids(), what="the end of all")


def test_frozen_workers_are_noticed_and_replaced(bare):
    bare.env["BARE_HANG_SECONDS"] = "1.5"
    bare.start()
    old = sentinel(bare)
    works(bare, "before")
    for worker in children(old)[:2]:
        os.kill(worker, signal.SIGSTOP)
    wait_for(lambda: not alive(old), 20, what="the end of the old set")
    works(bare, "after")
    assert "The worker set ends." in bare.output


def test_a_locked_database_does_not_end_the_worker_set(running):
    before = sentinel(running)
    lock = sqlite3.connect(running.data_dir / "rasweb.sqlite3", isolation_level=None)
    lock.execute("BEGIN EXCLUSIVE")
    time.sleep(1)
    lock.execute("ROLLBACK")
    lock.close()
    works(running, "after the lock")
    assert alive(before)


def test_a_wrong_setting_stops_the_start_with_one_sentence(bare):
    bare.env["RASWEB_PORT"] = "eighty"
    result = bare.run("up", check=False)
    assert (result.returncode, result.stderr) == (
        1,
        "rasweb: RASWEB_PORT must be a port number from 0 to 65535.\n",
    )
