"""Disks, hosts and troubles for whole runs between hosts in memory, and what must hold however a run ended."""

from __future__ import annotations

import random
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from templates_app.transfer.events import Failed, Published, Sealed, Unbased

from .drive import BLOCK, LEAF, LIMIT_SECONDS, Outcome, drive, make_job
from .memoryhost import Disk, Place, Trouble, World, disk_of

bounded = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)

SINK_CALLS = ["connect", "stage", "hole", "reserve", "write", "flush", "readback", "commit", "abort", "close"]
COPY_CALLS = ["open", "read", "stamp", "copy", "copy-step"]
SOURCE_CALLS = ["connect", "open", "extents", "read", "stamp"]
troubles_of_sinks = st.lists(
    st.builds(
        Trouble,
        st.sampled_from(SINK_CALLS),
        st.integers(1, 12),
        st.sampled_from(["error", "refuse", "full", "io", "bug", "hang", "rot", "slow", "short"]),
    ),
    max_size=3,
)
troubles_of_copies = st.lists(
    st.builds(
        Trouble,
        st.sampled_from(COPY_CALLS + SINK_CALLS),
        st.integers(1, 8),
        st.sampled_from(
            ["error", "refuse", "full", "io", "bug", "hang", "rot", "slow", "short", "unable", "change"]
        ),
    ),
    max_size=3,
)
troubles_of_sources = st.lists(
    st.builds(
        Trouble,
        st.sampled_from(SOURCE_CALLS),
        st.integers(1, 20),
        st.sampled_from(["error", "refuse", "io", "bug", "hang", "rot", "change", "slow", "short"]),
    ),
    max_size=2,
)


@st.composite
def disks(draw: st.DrawFn) -> Disk:
    size = draw(
        st.one_of(st.integers(0, 20 * BLOCK), st.sampled_from([0, 1, LEAF, BLOCK, BLOCK + 1, 5 * BLOCK - 1]))
    )
    content = random.Random(draw(st.integers(0, 1000))).randbytes(size)
    cuts = draw(st.lists(st.integers(0, 200), max_size=12))
    return disk_of(content, cuts, draw(st.sampled_from([512, 1000, LEAF, BLOCK])), lazy=draw(st.booleans()))


def places(count: int, all_troubles: Sequence[Sequence[Trouble]] = ()) -> dict[str, Place]:
    return {f"t{n}": Place(troubles=all_troubles[n] if n < len(all_troubles) else ()) for n in range(count)}


def source_with(*made: Disk, troubles: Sequence[Trouble] = ()) -> Place:
    place = Place(troubles=troubles)
    place.disks = {f"disk{number}": disk for number, disk in enumerate(made)}
    return place


def seal(folder: Path, *made: Disk) -> Sealed:
    outcome = drive(make_job(folder, [], list(source_with(*made).disks)), World(source=source_with(*made)))
    assert outcome.sealed
    return outcome.sealed


def check_lane(outcome: Outcome, lane: str, place: Place, folder: Path, made: Sequence[Disk]) -> None:
    """What must hold for a lane however it ended."""
    end = outcome.of(lane)
    assert end is not None
    assert not place.misused, "a host was to copy into a sink that was not fresh"
    if isinstance(end, Published):
        assert [place.published[image.name] for image in end.images] == [disk.content for disk in made]
        assert [place.marks[image.name].digest for image in end.images] == [
            image.digest for image in end.images
        ]
        assert place.staged == {}
    elif "commit" not in [trouble.call for trouble in place.troubles]:
        assert place.published == {}
    if isinstance(end, Failed) and not end.kept:
        assert place.staged == {}
        assert list((folder / "journals").glob(f"{lane}-*")) == []


def new_folder(base: pytest.TempPathFactory) -> tempfile.TemporaryDirectory[str]:
    """A folder for one example. A thread that outlives its run may still write there; pytest clears up after it."""
    return tempfile.TemporaryDirectory(dir=base.getbasetemp(), ignore_cleanup_errors=True)


def release(*all_places: Place) -> None:
    """End what hangs, and wait for lanes that a run gave up: on a busy machine they would meddle with the next."""
    for place in all_places:
        place.released.set()
    for thread in threading.enumerate():
        if thread.name.startswith(("lane-", "writer-")):
            thread.join(LIMIT_SECONDS)


def whole(blocks: int) -> Disk:
    return disk_of(random.Random(blocks).randbytes(blocks * BLOCK), [], LEAF)


Edit = tuple[int, str]


def edited(disk: Disk, changes: Sequence[Edit], size: int | None = None) -> Disk:
    """A later version of a disk: leaves with other data, or a page of it, or zeros; perhaps of another size."""
    content = bytearray(disk.content)
    leaves = -(-len(content) // LEAF)
    for number, (leaf, kind) in enumerate(changes if leaves else ()):
        start = leaf % leaves * LEAF
        stop = min(len(content), start + (LEAF if kind != "page" else 512))
        made = random.Random(number + 1000).randbytes(stop - start)
        content[start:stop] = bytes(stop - start) if kind == "zeros" else made
    if size is not None:
        content = content[:size] + random.Random(size).randbytes(max(0, size - len(content)))
    return disk_of(bytes(content), [], LEAF)


def published(outcome: Outcome, lane: str = "t0") -> Published:
    end = outcome.of(lane)
    assert isinstance(end, Published), end
    return end


def why(outcome: Outcome) -> list[str]:
    """The codes of why no copy was made of what a host had."""
    return [event.code for event in outcome.events if isinstance(event, Unbased)]


def large(changes: Sequence[Edit] = (), seed: int = 1) -> Disk:
    """400 leaves, three quarters of them data, the last one short."""
    made = random.Random(seed)
    content = b"".join(made.randbytes(3 * LEAF) + bytes(LEAF) for _ in range(100))[: 400 * LEAF - LEAF - 100]
    return edited(disk_of(content, [], LEAF), changes)
