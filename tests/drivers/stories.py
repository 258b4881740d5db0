"""Each verb on a host as a story, and a process that tells one and dies on the way.

Run as a program it forks such processes, and loads little, so that a fork is quick.
"""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from typing import IO, Any, cast

from providers_app.drivers import VM, CloneSpec, Definition, Driver, Image, Mark, files, load, open_driver
from rasweb.tether import die_with_parent
from tests.drivers.benches import GUEST, IMAGE, Bench
from tests.drivers.copying import fill, read_all

FIRST, SECOND = b"first version".ljust(40_000, b"\0"), b"second version".ljust(40_000, b"\0")
RUNS = ((0, 4096),)
NAME, NEXT, STAGED = "win-v1-0123456789ab.raw", "win-v2-0123456789ab.raw", "win-v3-{digest12}.raw"
COPY = Mark("here", "working-copy", "template-1")
KILLED = 77

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


def dying(change: int, do: Do) -> Do:
    left = change

    def count(call: Do, *args: Any, **kwargs: Any) -> Any:
        nonlocal left
        left -= 1
        if left == 0:
            os._exit(KILLED)
        return do(call, *args, **kwargs)

    return count


class Killer:
    """The program, running: it tells each story in a child of its own that dies before one of its changes."""

    def __init__(self) -> None:
        argv = [sys.executable, "-c", f"from {__name__} import main; main({os.getpid()})"]
        self._process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._orders, self._answers = cast(IO[str], self._process.stdin), cast(IO[str], self._process.stdout)

    def kills(self, name: str, bench: Bench, do: Do, change: int) -> bool:
        """Tell a story until its n-th change; return whether it was not over before."""
        order = (name, bench.kind, bench.settings, do is plain, change)
        self._orders.write(json.dumps(order) + "\n")
        self._orders.flush()
        status = int(self._answers.readline())
        assert status in (0, KILLED)
        return status == KILLED

    def close(self) -> None:
        with self._process:
            self._orders.close()


def main(parent: int) -> None:
    die_with_parent(parent)
    for kind in ("directory", "simulator"):
        load(kind)  # once, for all children
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            _tell(*json.loads(line))
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


def _tell(name: str, kind: str, settings: dict[str, Any], on_plain: bool, change: int) -> None:
    status = 1
    try:
        files.do = dying(change, plain if on_plain else quick)
        with open_driver(kind, settings) as host:
            STORIES[name].act(host)
        status = 0
    finally:
        os._exit(status)
