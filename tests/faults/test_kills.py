"""``kill -9`` of every process of the product: it costs time, never truth, and nothing proven is sent again."""

from __future__ import annotations

import re

import pytest

from tests.faults.bench import MIB, Bench
from tests.product import wait_for

pytestmark = pytest.mark.product


def test_sealing_and_copying_survive_the_death_of_every_process_and_resume(bench: Bench) -> None:
    bench.product.env["RASWEB_STALL_SECONDS"] = "60"
    bench.product.start()
    bench.add_simulated("source", size=4 * 36)
    bench.add("fast")
    bench.add("slow", bandwidth=4 * MIB)
    bench.faults("source", "hang=copy")
    bench.run(
        "template", "create", "win11", "--source", "source:sample-1", "--target", "slow", "--target", "fast"
    )

    worker = bench.holder("template")
    bench.until(lambda: bench.index("source")["staged"], "a part of the image")
    bench.product.kill(worker)
    bench.faults("source", "")

    proven = bench.until_moving("slow", 0)
    bench.product.kill(bench.engine("slow"))
    proven = bench.until_moving("slow", proven)
    claim = bench.target("slow")["claim"]
    bench.product.kill(bench.product.child("web"), bench.product.child("worker"))
    bench.until(lambda: bench.target("slow")["claim"] not in (None, claim), "another worker")
    bench.until(lambda: bench.product.get("/healthz") == 200, "pages")
    bench.product.kill()
    wait_for(lambda: not bench.product.pids(), what="the end of all processes")
    assert bench.words("win11")["slow"][1] == "Distributing"

    bench.product.start()
    bench.until_ok("source", "slow", "fast")
    assert bench.status("win11")["distribution"] == "OK"
    assert _sent(bench, "slow") <= 36 * MIB - proven
    bench.check()


def test_two_worker_sets_at_once_share_copies_and_guests(bench: Bench) -> None:
    bench.product.start()
    second = bench.second_worker_set()
    try:
        bench.add("source")
        bench.add("one", "two", bandwidth=4 * MIB)
        bench.vm("source")
        bench.run(
            "template", "create", "win11", "--source", "source:golden", "--concurrent", "1",
            "--target", "one", "--target", "two",
        )  # fmt: skip
        bench.until(lambda: bench.phase("one") == "copying", "the first copy")
        bench.product.kill(bench.holder("distributiontarget"))
        bench.run("guest", "create", "win11", "--provider", "source", "--count", "3", "--wait")
        bench.until_ok("one", "two")
    finally:
        bench.end(second)
    for host in ("one", "two"):
        assert sum("bytes) sent" in note for note in bench.notes(host)) == 1
    bench.check()


def _sent(bench: Bench, host: str) -> int:
    """Bytes that the last run sent."""
    notes = [found for note in bench.notes(host) if (found := re.search(r"(\d+) bytes\) sent", note))]
    return int(notes[0][1])
