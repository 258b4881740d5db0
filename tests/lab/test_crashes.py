"""Each verb, cut off before each change it makes on a host: what is there is whole, and the next call finishes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from providers_app.drivers import CloneSpec, Definition, Driver, files
from tests.drivers.benches import GUEST, IMAGE
from tests.drivers.copying import aligned
from tests.lab.bench import LibvirtBench

FIRST, SECOND = b"first version".ljust(204_800, b"1"), b"second version".ljust(204_800, b"2")
DESK = replace(GUEST, owner="desk")
MOST_CHANGES = 100


class Dead(BaseException):
    """What a process that died would have done next never happens."""


def publish(host: Driver, content: bytes = FIRST, version: int = 1) -> None:
    mark = replace(IMAGE, version=version)
    sink = host.stage(name(version), len(content), mark)
    try:
        sink.write(0, aligned(content))
        sink.flush()
        sink.commit(name(version), mark)
    finally:
        sink.close()


def publish_next(host: Driver) -> None:
    """Let the host copy the first version, and change all of it."""
    (first,) = [each for each in host.survey().images if each.mark and each.mark.version == 1]
    mark = replace(IMAGE, version=2)
    sink = host.stage(name(2), len(SECOND), mark)
    try:
        sink.copy_from(first.ref, lambda _: None)
        sink.write(0, aligned(SECOND))
        sink.commit(name(2), mark)
    finally:
        sink.close()


def name(version: int) -> str:
    return f"win-v{version}-0123456789ab.raw"


def spec(host: Driver, version: int) -> CloneSpec:
    (ref,) = [each.ref for each in host.survey().images if each.mark and each.mark.version == version]
    return CloneSpec("desk", (ref,), ("raw",), version == 1, Definition(32, 1), DESK)


def nothing(host: Driver) -> None:
    host.delete_guest("desk", DESK)
    host.remove(name(1), replace(IMAGE, version=1))


def an_image(host: Driver) -> None:
    nothing(host)
    publish(host)


def one_image(host: Driver) -> None:
    host.remove(name(2), replace(IMAGE, version=2))
    an_image(host)


def two_images(host: Driver) -> None:
    an_image(host)
    publish(host, SECOND, 2)


def a_guest(host: Driver) -> None:
    two_images(host)
    host.clone(spec(host, 1))


def remove(host: Driver) -> None:
    host.remove(name(1), replace(IMAGE, version=1))


STORIES: dict[str, tuple[Callable[[Driver], Any], Callable[[Driver], Any], tuple[int, int]]] = {
    "publish": (nothing, publish, (1, 0)),
    "publish next": (one_image, publish_next, (2, 0)),
    "remove": (an_image, remove, (0, 0)),
    "clone": (two_images, lambda host: host.clone(spec(host, 1)), (2, 1)),
    "recreate": (a_guest, lambda host: host.recreate(spec(host, 2)), (2, 1)),
    "delete": (a_guest, lambda host: host.delete_guest("desk", DESK), (2, 0)),
}


@pytest.mark.parametrize("story", STORIES)
def test_a_verb_cut_off_anywhere_is_finished_by_the_next_call(
    bench: LibvirtBench, story: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, act, (images, guests) = STORIES[story]
    for change in range(1, MOST_CHANGES):
        with bench.driver() as host:
            before(host)
        survived = not dies_before(change, bench, act, monkeypatch)
        look(bench)
        with bench.driver() as host:
            act(host)
            survey = host.survey()
        assert (len(survey.images), len(survey.guests), survey.staged) == (images, guests, ()), change
        assert bench.litter() == [], change
        if survived:
            assert change > 1
            return
    pytest.fail(f"more than {MOST_CHANGES} changes")


def look(bench: LibvirtBench) -> None:
    """Whatever is called an image or a guest is whole."""
    with bench.driver() as host:
        survey = host.survey()
    for image in survey.images:
        assert bench.path(image.ref).read_bytes() in (FIRST, SECOND)
    for guest in survey.guests:
        assert (guest.problem, len(guest.disks)) == ("", 1)


def dies_before(
    change: int, bench: LibvirtBench, act: Callable[[Driver], Any], monkeypatch: pytest.MonkeyPatch
) -> bool:
    left, real = change, files.do

    def do(call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        nonlocal left
        left -= 1
        if left <= 0:
            raise Dead
        return real(call, *args, **kwargs)

    with monkeypatch.context() as patched, bench.driver() as host:
        patched.setattr(files, "do", do)
        try:
            act(host)
        except Dead:
            return True
    return False
