"""The arithmetic of the measurements, and one small case for real."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path

import pytest

from . import paper
from .cases import CASES
from .fanout import fan_out
from .goals import verdicts
from .measure import Cost, Found, cost_of, run_together
from .paper import GIB, Site
from .report import BEGIN, END, report, table, write
from .rounds import ENGINE, LIMIT, PEER, SLOW_ROUNDS, Case, Entry, Result, measure
from .site import half_full, thinned

MIB = 1 << 20
PAGE = Path(__file__).parents[2] / "docs" / "performance.md"


def cost(wall: float = 1.0, cpu: float = 1.0, **fields: int) -> Cost:
    return Cost(wall, cpu, fields.pop("memory", 0), 0, 0, **fields)


def result(case: str, *, data: int = 0, **rows: tuple[str, bool, list[Cost]]) -> Result:
    entries = {name: Entry(name, Found, role, proven=proven) for name, (role, proven, _) in rows.items()}
    return Result(case, "about", entries, {name: costs for name, (_, _, costs) in rows.items()}, [], data)


def test_the_median_is_taken_of_each_figure() -> None:
    costs = [cost(1, 9), cost(2, 8, sent=5), cost(30, 1, sent=7)]
    assert Cost.median_of(costs) == cost(2, 8, sent=5)


def test_ratios_are_against_the_best_peer_and_the_best_that_proves() -> None:
    found = report(
        [
            result(
                "1 host",
                rasweb=(ENGINE, True, [cost(3, 4)]),
                fast=(PEER, False, [cost(2, 8)]),
                careful=(PEER, True, [cost(6, 16)]),
                zeros=(LIMIT, False, [cost(0.5, 0.5)]),
                never=(PEER, False, []),
            )
        ],
        size=MIB,
    )
    mine, *others = found["cases"][0]["rows"]
    assert [row["name"] for row in others] == ["fast", "careful", "zeros"]
    assert (mine["wall_to_best"], mine["wall_to_best_proven"], mine["cpu_to_best"]) == (1.5, 0.5, 0.5)
    assert json.loads(json.dumps(found)) == found
    assert "| rasweb ✓ " in table(found)


def test_goals_are_judged_where_their_case_was_run_and_left_out_elsewhere() -> None:
    many = result(
        "8 hosts",
        data=100 * MIB,
        rasweb=(ENGINE, True, [cost(2, 1, memory=200 * MIB, source=105 * MIB)]),
        cp=(PEER, False, [cost(1, 10)]),
    )
    judged = {verdict.text: (verdict.measured, verdict.reached) for verdict in verdicts([many])}
    assert judged == {
        "8 hosts: time, beside the best program, proof or not": (2.0, False),
        "8 hosts: processor time, beside the best, proof or not": (0.1, True),
        "8 hosts: bytes read from the source, to its data": (1.05, True),
        "memory at 8 hosts, MiB": (200.0, False),
    }


def test_every_entry_is_run_in_the_first_round_and_slow_ones_seldom_after() -> None:
    seen: list[str] = []
    cleared: list[int] = []

    def work(name: str) -> Found:
        seen.append(name)
        return Found(wall=1.5)

    @contextmanager
    def making() -> Iterator[Case]:
        entries = [Entry("a", partial(work, "a")), Entry("b", partial(work, "b"), slow=True)]
        yield Case("c", "", 1.0, entries, lambda: cleared.append(1))

    (one,) = measure([making], rounds=4, seconds=60, tell=lambda line: None)
    assert {name: len(costs) for name, costs in one.costs.items()} == {"a": 4, "b": SLOW_ROUNDS}
    assert len(cleared) == len(seen) == 4 + SLOW_ROUNDS
    assert one.costs["a"][0].wall == 1.5


def test_no_round_begins_that_would_end_too_late() -> None:
    @contextmanager
    def making() -> Iterator[Case]:
        yield Case("c", "", 0.0, [Entry("a", Found)])

    (one,) = measure([making], rounds=9, seconds=60, tell=lambda line: None)
    assert len(one.costs["a"]) == 1
    assert measure([making], rounds=9, seconds=-1, tell=lambda line: None) == []


def test_the_work_of_grandchildren_counts(tmp_path: Path) -> None:
    line = (
        f'dd if=/dev/zero of={tmp_path}/out bs=1M count=3 conv=fsync status=none; "$0" -c "sum(range(10**6))"'
    )
    found = cost_of(lambda: Found(run_together([["sh", "-c", line, sys.executable]])), own=False)
    assert found.written >= 3 * MIB
    assert found.cpu > 0
    assert found.memory > 0


def test_a_program_that_fails_is_no_measurement() -> None:
    with pytest.raises(RuntimeError, match="ended with 3"):
        run_together([["sh", "-c", "exit 3"]])


@pytest.mark.parametrize("size", [MIB, 64 * MIB + 4096])
def test_images_have_their_data_inside(size: int) -> None:
    for runs in (list(half_full(size)), list(thinned(size, size // 2))):
        assert all(0 <= offset < offset + length <= size for offset, length in runs)
        assert all(offset + length <= following for (offset, length), (following, _) in pairwise(runs))


def test_a_page_gets_the_new_tables_and_keeps_the_rest(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    write(page, "new")
    assert page.read_text() == f"before\n{BEGIN}\n\nnew\n\n{END}\nafter\n"
    page.write_text("no marks")
    with pytest.raises(ValueError, match="has no lines"):
        write(page, "new")


def test_the_model_agrees_with_its_formulae_and_with_the_page() -> None:
    site = Site(link=10e9 / 8, data=25 * GIB, cpu=0.7, cores=4)
    one = 25 * GIB / 1.25e9
    assert site.star(1000) == pytest.approx(1000 * one)
    assert replace(site, cpu=70, cores=1).star(10) == pytest.approx(10 * 25 * 70)
    assert site.holders(100) == pytest.approx(19 * one)
    assert site.tree(1000) == pytest.approx(10 * one)
    assert 2 * one < site.tree_at_once(1000) < 2.1 * one
    assert paper.table(site) in PAGE.read_text()
    assert paper.table(replace(site, data=GIB)) in PAGE.read_text()


def test_the_shares_of_all_cases_are_the_whole_time() -> None:
    shares = [making.keywords["share"] for makings in CASES.values() for making in makings]  # type: ignore[attr-defined]
    assert sum(shares) == pytest.approx(1.0)


def test_a_small_case_is_measured_for_real_and_leaves_nothing(tmp_path: Path) -> None:
    @contextmanager
    def making() -> Iterator[Case]:
        with fan_out(tmp_path, MIB, 0.0, targets=2) as case:
            case.entries = [entry for entry in case.entries if entry.name in {"rasweb", "cp, cmp"}]
            yield case

    (one,) = measure([making], rounds=3, seconds=60, tell=lambda line: None)
    assert {len(costs) for costs in one.costs.values()} == {1}
    assert one.costs["rasweb"][0].sent == 2 * one.data > 0
    assert list(tmp_path.iterdir()) == []
