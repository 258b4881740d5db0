"""Threads that stay for the next piece of work."""

from __future__ import annotations

import threading
from queue import SimpleQueue

from providers_app.crew import Crew
from tests.product import wait_for

PATIENCE = 10.0


def test_what_comes_one_after_the_other_is_done_by_one_thread() -> None:
    done: SimpleQueue[int] = SimpleQueue()
    crew = Crew[None]("crew", lambda _: done.put(threading.get_ident()), 3)
    seen = set()
    for _ in range(5):
        crew.begin(None)
        seen.add(done.get(timeout=PATIENCE))
        wait_for(lambda: crew._busy == 0)
    assert len(seen) == 1


def test_what_hangs_delays_nothing_as_long_as_there_is_room() -> None:
    done: SimpleQueue[str] = SimpleQueue()
    go_on = threading.Event()

    def work(word: str) -> None:
        if word == "hangs":
            go_on.wait(PATIENCE)
        done.put(word)

    crew = Crew("crew", work, 2)
    crew.begin("hangs")
    crew.begin("quick")
    assert done.get(timeout=PATIENCE) == "quick"
    crew.wait_for_room()
    crew.begin("hangs")
    full = threading.Thread(target=crew.wait_for_room, daemon=True)
    full.start()
    crew.begin("last")
    full.join(0.05)
    assert full.is_alive()
    go_on.set()
    assert sorted(done.get(timeout=PATIENCE) for _ in range(3)) == ["hangs", "hangs", "last"]
    full.join(PATIENCE)
    assert not full.is_alive()
    assert crew._threads == 2
