"""Where the time of a lane goes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from templates_app.transfer.job import Base
from templates_app.transfer.spent import COPY, LIMIT, OTHERS, SOURCE, VERIFY, WRITE

from .drive import SMALL, drive, make_job
from .memoryhost import Place, Trouble, World
from .scenes import seal, source_with, whole


@pytest.mark.parametrize(
    ("source", "host", "limit", "held_up_by"),
    [
        (Place(troubles=[Trouble("read", at, "slow") for at in range(1, 9)]), Place(), 0, SOURCE),
        (Place(), Place(delay=0.03), 0, WRITE),
        (Place(), Place(), 300_000, LIMIT),
        (Place(), Place(troubles=[Trouble("readback", at, "slow") for at in range(1, 9)]), 0, VERIFY),
    ],
    ids=[SOURCE, WRITE, LIMIT, VERIFY],
)
def test_a_lane_knows_what_its_time_is_spent_on(
    tmp_path: Path, source: Place, host: Place, limit: int, held_up_by: str
) -> None:
    made = whole(8)
    source.disks["disk0"] = made
    job = make_job(tmp_path, ["t0"], ["disk0"], sealed=seal(tmp_path, made))
    job = replace(job, lanes=[replace(job.lanes[0], bandwidth=limit)])
    spent = drive(job, World(source=source, t0=host)).spent["t0"]
    assert max(spent, key=spent.__getitem__) == held_up_by


def test_a_lane_that_waits_for_a_slower_one_says_so(tmp_path: Path) -> None:
    made = whole(12)
    hosts = {"t0": Place(delay=0.03), "t1": Place()}
    job = make_job(tmp_path, list(hosts), ["disk0"], sealed=seal(tmp_path, made))
    patient = replace(SMALL, laggard_seconds=60)
    spent = drive(job, World(source=source_with(made), **hosts), tuning=patient).spent["t1"]
    assert max(spent, key=spent.__getitem__) == OTHERS


def test_a_lane_tells_its_hosts_own_copying_apart(tmp_path: Path) -> None:
    made, host = whole(8), Place(troubles=[Trouble("copy-step", at, "slow") for at in range(1, 5)])
    sealed = seal(tmp_path, made)
    host.disks["base"] = made
    bases = {"t0": Base("base", sealed.disks[0].manifest)}
    job = make_job(tmp_path, ["t0"], ["disk0"], sealed=sealed, bases=bases)
    spent = drive(job, World(source=source_with(made), t0=host)).spent["t0"]
    assert max(spent, key=spent.__getitem__) == COPY
