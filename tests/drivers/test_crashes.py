"""Every verb, killed before each single change it makes: what is there stays whole, and the next call finishes."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from providers_app.drivers import (
    VM,
    CloneSpec,
    Definition,
    Driver,
    Image,
    Mark,
    NoSpace,
    files,
)
from tests.drivers.benches import BENCHES, GUEST, IMAGE, Bench
from tests.drivers.copying import fill, read_all

FIRST, SECOND = b"first version".ljust(40_000, b"\0"), b"second version".ljust(40_000, b"\0")
RUNS = ((0, 4096),)
NAME, NEXT, STAGED = "win-v1-0123456789ab.raw", "win-v2-0123456789ab.raw", "win-v3-{digest12}.raw"
COPY = Mark("here", "working-copy", "template-1")
KILLED = 77
MOST_CHANGES = 200
PLAIN = "directory on a plain file system"

Do = Callable[..., Any]


def quick(call: Do, *args: Any, **kwargs: Any) -> Any:
    """Leave out what only a crash of the machine would need."""
    return None if call in (os.fsync, os.fdatasync) else call(*args, **kwargs)


def plain(call: Do, *args: Any, **kwargs: Any) -> Any:
    """Be a file system that can rename, and nothing more."""
    if call.__name__ == "_renameat2":
        raise OSError(errno.EINVAL, "no flags")
    if call is os.link or (call is os.open and args[1] & os.O_TMPFILE == os.O_TMPFILE):
        raise OSError(errno.EOPNOTSUPP, "not here")
    return quick(call, *args, **kwargs)


@pytest.fixture
def fresh(request: pytest.FixtureRequest, memory: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Fresh]:
    kind, _, on_plain = request.param.partition(" ")
    maker = Fresh(kind, memory)
    monkeypatch.setattr(files, "do", plain if on_plain else quick)
    yield maker
    maker.close()


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


@dataclass(frozen=True)
class Story:
    """``before`` makes the scene, ``act`` is killed and then done again, ``between`` and ``after`` look at the host."""

    before: Callable[[Driver], None]
    act: Callable[[Driver], object]
    between: Callable[[Bench, Driver], None]
    after: Callable[[Bench, Driver], None]


def put(host: Driver, content: bytes, name: str, version: int) -> Image:
    with closing(host.stage(name, len(content), replace(IMAGE, version=version))) as sink:
        fill(sink, content, RUNS)
        sink.flush()
        return sink.commit(name, replace(IMAGE, version=version))


def ours(host: Driver) -> list[Image]:
    return [image for image in host.survey().images if image.name != "foreign.raw"]


def guests(host: Driver) -> list[VM]:
    return [guest for guest in host.survey().guests if guest.name != "foreign"]


def spec(host: Driver, name: str, *, linked: bool = False, mark: Mark = GUEST, vm: str = "desk") -> CloneSpec:
    ref = next(image.ref for image in host.survey().images if image.name == name)
    return CloneSpec(vm, (ref,), ("raw",), linked, Definition(512, 1), mark)


def content_of(bench: Bench, vm: VM) -> bytes:
    """Return the bytes of a full clone, or of the image a linked one stands on."""
    (disk,) = vm.disks
    assert vm.problem == ""
    content = bench.path(disk.ref).read_bytes()
    if disk.format == "raw":
        return content
    refs = {image.ref.rpartition("/")[2].encode(): image.ref for image in bench.connected().survey().images}
    (base,) = (ref for name, ref in refs.items() if name in content[:4096])
    return bench.path(base).read_bytes()


def both_images(host: Driver) -> None:
    put(host, FIRST, NAME, 1)
    put(host, SECOND, NEXT, 2)


def images_are_whole(bench: Bench, host: Driver) -> None:
    for image in ours(host):
        source = host.open_source(image.ref)
        assert read_all(source, image.size) == (FIRST if image.name == NAME else SECOND)
        assert image.stamp == source.stamp()
        source.close()


def guest_is(*contents: bytes, there: bool) -> Callable[[Bench, Driver], None]:
    def check(bench: Bench, host: Driver) -> None:
        images_are_whole(bench, host)
        found = guests(host)
        assert len(found) == 1 if there else len(found) < 2
        assert all(content_of(bench, guest) in contents for guest in found)

    return check


def nothing_is_there(bench: Bench, host: Driver) -> None:
    survey = host.survey()
    assert (ours(host), guests(host), survey.vms, survey.staged) == ([], [], (), ())


def published(bench: Bench, host: Driver) -> None:
    images_are_whole(bench, host)
    assert [image.name for image in ours(host)] == [NAME]
    assert host.survey().staged == ()


def copy_is(*, there: bool) -> Callable[[Bench, Driver], None]:
    def check(bench: Bench, host: Driver) -> None:
        found = host.survey().vms
        assert len(found) <= 1
        assert all(content_of(bench, vm) == FIRST for vm in found)
        assert len(found) == 1 or not there

    return check


def staged_and_published(host: Driver) -> None:
    put(host, FIRST, NAME, 1)
    host.stage(NAME, len(FIRST), replace(IMAGE, version=1)).close()


def remove_all(host: Driver) -> None:
    host.remove(NAME, replace(IMAGE, version=1))


def publish_and_remove(host: Driver) -> None:
    put(host, FIRST, NAME, 1)
    remove_all(host)


def start_and_abort(host: Driver) -> None:
    with closing(host.stage(STAGED, len(FIRST), replace(IMAGE, digest=""))) as sink:
        fill(sink, FIRST, RUNS)
        sink.abort()


def guest_of_first(linked: bool) -> Callable[[Driver], None]:
    def before(host: Driver) -> None:
        both_images(host)
        host.clone(spec(host, NAME, linked=linked))

    return before


def with_copy(host: Driver) -> None:
    put(host, FIRST, NAME, 1)
    make_copy(host)


def make_copy(host: Driver) -> None:
    host.make_working_copy(spec(host, NAME, mark=COPY, vm="maintenance"))


def anything(bench: Bench, host: Driver) -> None:
    host.survey()


LINKED_CLONE, LINKED_RECREATE = "clone linked", "recreate linked"
STORIES = {
    "publish": Story(lambda host: None, lambda host: put(host, FIRST, NAME, 1), images_are_whole, published),
    "publish and remove": Story(
        lambda host: None,
        publish_and_remove,
        images_are_whole,
        nothing_is_there,
    ),
    "abort": Story(lambda host: None, start_and_abort, images_are_whole, nothing_is_there),
    "remove": Story(staged_and_published, remove_all, images_are_whole, nothing_is_there),
    "clone": Story(
        both_images,
        lambda host: host.clone(spec(host, NAME)),
        guest_is(FIRST, there=False),
        guest_is(FIRST, there=True),
    ),
    LINKED_CLONE: Story(
        both_images,
        lambda host: host.clone(spec(host, NAME, linked=True)),
        guest_is(FIRST, there=False),
        guest_is(FIRST, there=True),
    ),
    "recreate": Story(
        guest_of_first(linked=False),
        lambda host: host.recreate(spec(host, NEXT)),
        guest_is(FIRST, SECOND, there=True),
        guest_is(SECOND, there=True),
    ),
    LINKED_RECREATE: Story(
        guest_of_first(linked=True),
        lambda host: host.recreate(spec(host, NEXT, linked=True)),
        guest_is(FIRST, SECOND, there=True),
        guest_is(SECOND, there=True),
    ),
    "delete": Story(
        guest_of_first(linked=False),
        lambda host: host.delete_guest("desk", GUEST),
        guest_is(FIRST, there=False),
        guest_is(there=False),
    ),
    "make a working copy": Story(both_images, make_copy, copy_is(there=False), copy_is(there=True)),
    "remove a working copy": Story(
        with_copy,
        lambda host: host.remove_working_copy("maintenance", COPY),
        copy_is(there=False),
        published,
    ),
}


def told(names: Iterable[str]) -> list[tuple[str, str]]:
    """Each story on each kind; those of linked clones, for which qemu-img runs again and again, on one of them."""
    kinds = ("directory", "simulator", PLAIN)
    return [
        (kind, name)
        for name in sorted(names)
        for kind in (kinds[:1] if name in (LINKED_CLONE, LINKED_RECREATE) else kinds)
    ]


@pytest.mark.parametrize(("fresh", "name"), told(STORIES), indirect=["fresh"])
def test_a_verb_killed_anywhere_is_finished_by_the_next_call(fresh: Fresh, name: str) -> None:
    story = STORIES[name]
    for change in range(1, MOST_CHANGES):
        bench = fresh()
        story.before(bench.connected())
        survived = not killed_before(change, bench, story.act)
        story.between(bench, bench.connected())
        story.act(bench.connected())
        story.after(bench, bench.connected())
        assert bench.litter() == [], change
        if survived:
            return
    pytest.fail(f"more than {MOST_CHANGES} changes")


def killed_before(change: int, bench: Bench, act: Callable[[Driver], object]) -> bool:
    """Run ``act`` in a child that dies before its n-th change; tell whether it died."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            files.do = dying(change, files.do)
            with bench.driver() as host:
                act(host)
            status = 0
        finally:
            os._exit(status)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status in (0, KILLED)
    return status == KILLED


def dying(change: int, do: Do) -> Do:
    left = change

    def count(call: Do, *args: Any, **kwargs: Any) -> Any:
        nonlocal left
        left -= 1
        if left == 0:
            os._exit(KILLED)
        return do(call, *args, **kwargs)

    return count


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
