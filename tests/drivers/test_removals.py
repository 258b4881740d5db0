"""The contract, for every kind: removing images, and images that were changed or deleted by hand."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest

from providers_app.drivers import CloneSpec, Definition, Driver, Image, Refused
from tests.drivers.benches import GUEST, IMAGE, NAME, OTHERS, SIZE, UNKNOWN, UNRESOLVED, Bench, known_bytes
from tests.drivers.copying import publish


def test_a_removed_image_is_gone_and_may_be_removed_again(bench: Bench, host: Driver, image: Image) -> None:
    host.remove(NAME, IMAGE)
    host.remove(NAME, IMAGE)
    survey = host.survey()
    assert (survey.images, survey.staged, bench.litter()) == ((), (), [])


def test_a_removal_takes_what_was_staged_too(bench: Bench, host: Driver, image: Image) -> None:
    host.stage(NAME, SIZE, IMAGE).close()
    host.stage(UNRESOLVED, SIZE, UNKNOWN).close()
    host.remove(NAME, IMAGE)
    assert (host.survey().staged, bench.litter()) == ((), [])
    host.stage(UNRESOLVED, SIZE, UNKNOWN).close()
    host.remove(UNRESOLVED, UNKNOWN)
    assert (host.survey().staged, bench.litter()) == ((), [])


def test_a_discard_takes_what_was_staged_and_no_image(bench: Bench, host: Driver, image: Image) -> None:
    second = replace(IMAGE, version=2)
    for name, mark in ((NAME, IMAGE), (UNRESOLVED, OTHERS), ("win11-v2-ba9876543210.raw", second)):
        host.stage(name, SIZE, mark).close()
    for _ in range(2):
        host.discard(NAME, IMAGE)
        survey = host.survey()
        assert survey.images == (image,)
        assert {staged.mark for staged in survey.staged} == {OTHERS, second}


def test_a_discard_leaves_alone_what_another_process_holds(bench: Bench, host: Driver) -> None:
    held = bench.connected().stage(NAME, SIZE, IMAGE)
    with pytest.raises(Refused) as refused:
        host.discard(NAME, IMAGE)
    assert refused.value.code == "IN_USE"
    assert held.commit(NAME, IMAGE).mark == IMAGE


def test_a_name_without_a_digest_yet_is_said_without_its_placeholder(bench: Bench, host: Driver) -> None:
    held = bench.connected().stage(UNRESOLVED, SIZE, UNKNOWN)
    with pytest.raises(Refused, match=r"win11-v1-…\.raw") as refused:
        host.discard(UNRESOLVED, UNKNOWN)
    assert "{" not in str(refused.value)
    held.abort()


def test_a_removal_takes_nothing_else(bench: Bench, host: Driver, image: Image) -> None:
    ref = bench.add_vm("win", known_bytes(2))
    other = publish(host, known_bytes(3), "win11-v2-ba9876543210.raw", replace(IMAGE, version=2))
    host.remove(NAME, IMAGE)
    assert host.survey().images == (other,)
    assert bench.path(other.ref).read_bytes() == known_bytes(3)
    assert bench.path(ref).read_bytes() == known_bytes(2)


def test_an_image_that_was_changed_by_hand_is_noticed_and_kept(
    bench: Bench, host: Driver, image: Image
) -> None:
    with bench.path(image.ref).open("r+b") as file:
        file.write(b"changed")
    os.utime(bench.path(image.ref), ns=(1, 1))
    (seen,) = host.survey().images
    assert seen.stamp != image.stamp
    with pytest.raises(Refused) as refused:
        host.remove(NAME, IMAGE)
    assert refused.value.code == "CONTENT_CHANGED"
    with pytest.raises(Refused) as refused:
        publish(host, known_bytes(), NAME, IMAGE)
    assert refused.value.code == "CONTENT_CHANGED"
    host.remove(NAME, IMAGE, force=True)
    assert host.survey().images == ()


def test_an_image_that_was_only_touched_is_as_published_again_once_it_is_confirmed(
    bench: Bench, host: Driver, image: Image
) -> None:
    path = bench.path(image.ref)
    path.write_bytes(path.read_bytes())
    os.utime(path, ns=(1_000_000_000, 1_000_000_000))
    (seen,) = host.survey().images
    with pytest.raises(Refused) as refused:
        host.confirm(NAME, IMAGE, image.stamp)
    assert refused.value.code == "CONTENT_CHANGED"
    with pytest.raises(Refused) as refused:
        host.confirm(NAME, OTHERS, seen.stamp)
    assert refused.value.code == "NOT_OURS"
    for _ in range(2):
        host.confirm(NAME, IMAGE, seen.stamp)
        assert host.survey().images == (seen,)
    guest = host.clone(CloneSpec("desk", (image.ref,), ("raw",), False, Definition(32, 1), GUEST))
    assert bench.path(guest.disks[0].ref).read_bytes() == known_bytes()
    host.delete_guest("desk", GUEST)
    host.remove(NAME, IMAGE)
    assert host.survey().images == ()
    assert bench.litter() == []


def test_an_image_that_was_deleted_by_hand_can_be_published_again(
    bench: Bench, host: Driver, image: Image
) -> None:
    bench.path(image.ref).unlink()
    assert host.survey().images == ()
    again = publish(host, known_bytes(), NAME, IMAGE)
    assert [(found.name, found.mark) for found in host.survey().images] == [(NAME, IMAGE)]
    assert bench.path(again.ref).read_bytes() == known_bytes()
