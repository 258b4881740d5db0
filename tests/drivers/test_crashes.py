"""Every verb, killed before each single change it makes: what is there stays whole, and the next call finishes."""

from __future__ import annotations

import errno
from collections.abc import Iterable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest

from providers_app.drivers import NoSpace, files
from tests.drivers.benches import BENCHES, Bench
from tests.drivers.stories import LINKED_CLONE, LINKED_RECREATE, STORIES, Do, Killer, plain, quick

MOST_CHANGES = 200
PLAIN = "directory on a plain file system"


@pytest.fixture
def fresh(request: pytest.FixtureRequest, memory: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Fresh]:
    kind, _, on_plain = request.param.partition(" ")
    maker = Fresh(kind, memory)
    monkeypatch.setattr(files, "do", plain if on_plain else quick)
    yield maker
    maker.close()


@pytest.fixture(scope="module")
def killer() -> Iterator[Killer]:
    with closing(Killer()) as running:
        yield running


class Fresh:
    """Makes one new host after the other."""

    def __init__(self, kind: str, root: Path) -> None:
        self.kind = kind
        self.root = root
        self.made: list[Bench] = []

    def __call__(self) -> Bench:
        self.close()
        root = self.root / str(len(self.made))
        root.mkdir()
        bench = BENCHES[self.kind](root)
        bench.add_foreign_image("foreign.raw")
        bench.add_foreign_guest("foreign")
        self.made.append(bench)
        return bench

    def close(self) -> None:
        for bench in self.made:
            bench.close()


def told(names: Iterable[str]) -> list[tuple[str, str]]:
    """Each story on each kind; those of linked clones, for which qemu-img runs again and again, on one of them."""
    kinds = ("directory", "simulator", PLAIN)
    return [
        (kind, name)
        for name in sorted(names)
        for kind in (kinds[:1] if name in (LINKED_CLONE, LINKED_RECREATE) else kinds)
    ]


@pytest.mark.parametrize(("fresh", "name"), told(STORIES), indirect=["fresh"])
def test_a_verb_killed_anywhere_is_finished_by_the_next_call(fresh: Fresh, name: str, killer: Killer) -> None:
    story = STORIES[name]
    for change in range(1, MOST_CHANGES):
        bench = fresh()
        story.before(bench.connected())
        survived = not killer.kills(name, bench, files.do, change)
        story.between(bench, bench.connected())
        story.act(bench.connected())
        story.after(bench, bench.connected())
        assert bench.litter() == [], change
        if survived:
            return
    pytest.fail(f"more than {MOST_CHANGES} changes")


@pytest.mark.parametrize(
    ("fresh", "name"), told(set(STORIES) - {LINKED_CLONE, LINKED_RECREATE}), indirect=["fresh"]
)
def test_a_verb_that_finds_no_space_says_so_and_is_finished_by_the_next_call(
    fresh: Fresh, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    story, do = STORIES[name], files.do
    for change in range(1, MOST_CHANGES):
        bench = fresh()
        story.before(bench.connected())
        full = Full(change, do)
        monkeypatch.setattr(files, "do", full)
        with suppress(NoSpace), bench.driver() as host:
            story.act(host)
        monkeypatch.setattr(files, "do", do)
        story.between(bench, bench.connected())
        story.act(bench.connected())
        story.after(bench, bench.connected())
        assert bench.litter() == [], change
        if full.left > 0:
            return
    pytest.fail(f"more than {MOST_CHANGES} changes")


class Full:
    """A file system that has no room for the n-th change."""

    def __init__(self, change: int, do: Do) -> None:
        self.left = change
        self._do = do

    def __call__(self, call: Do, *args: Any, **kwargs: Any) -> Any:
        self.left -= 1
        if self.left == 0:
            raise OSError(errno.ENOSPC, "full")
        return self._do(call, *args, **kwargs)
