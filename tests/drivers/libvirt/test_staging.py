"""What is being copied is never taken for an image, by nobody."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from typing import Any

import pytest

from providers_app.drivers import CloneSpec, Definition, DriverError, Missing, Refused, files
from providers_app.drivers.libvirt import connection
from providers_app.drivers.libvirt.notes import Note
from tests.drivers.benches import GUEST, IMAGE, NAME, known_bytes
from tests.drivers.copying import aligned, fill, publish, read_all
from tests.lab.bench import LibvirtBench

LARGE = 5 << 20
RUNS = ((0, 100_000), (LARGE - 5000, 5000), (3 << 20, 70_000))


def test_an_unfinished_volume_begins_with_nothing_until_it_is_published(bench: LibvirtBench) -> None:
    host = bench.connected()
    content = known_bytes(size=LARGE, runs=RUNS)
    sink = host.stage(NAME, LARGE, IMAGE)
    fill(sink, content, RUNS)
    sink.flush()
    (staged,) = host.survey().staged
    there = bench.path(staged.ref).read_bytes()
    assert there[: 64 << 10] == bytes(64 << 10)
    assert there[64 << 10 :] == content[64 << 10 :]
    assert read_all(sink, LARGE) == content
    image = sink.commit(NAME, IMAGE)
    assert bench.path(image.ref).read_bytes() == content


def test_what_else_is_asked_does_not_queue_behind_what_is_sent(
    bench: LibvirtBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    host, opened = bench.connected(), []

    real = connection.connect

    def connect(uri: str, where: str) -> Any:
        opened.append(real(uri, where))
        return opened[-1]

    monkeypatch.setattr(connection, "connect", connect)
    content = known_bytes(size=LARGE, runs=RUNS)
    sink = host.stage(NAME, LARGE, IMAGE)
    assert read_all(sink, LARGE) == bytes(LARGE)
    assert opened == []
    fill(sink, content, RUNS)
    sink.flush()
    assert read_all(sink, LARGE) == content
    (apart,) = opened
    sink.commit(NAME, IMAGE)
    with pytest.raises(Exception, match="invalid connection"):
        apart.getHostname()


def test_no_account_of_the_host_but_its_own_reads_what_is_made_there(bench: LibvirtBench) -> None:
    host = bench.connected()
    image = publish(host, known_bytes(size=LARGE, runs=RUNS), NAME, IMAGE, RUNS)
    for name, linked in (("linked", True), ("full", False)):
        host.clone(CloneSpec(name, (image.ref,), ("raw",), linked, Definition(64, 1), GUEST))
    sink = host.stage("next.raw", LARGE, IMAGE)
    assert sink.copy_from(image.ref, lambda _: None)
    modes = {path.name: path.stat().st_mode & 0o777 for path in bench.folder.iterdir()}
    assert len(modes) == 8
    assert set(modes.values()) == {0o600}
    sink.abort()


def test_a_volume_without_its_note_is_somebodys_volume_and_no_base(bench: LibvirtBench) -> None:
    host = bench.connected()
    image = publish(host, known_bytes(), NAME, IMAGE)
    bench.path(f".{NAME}.rasweb.json").unlink()
    (seen,) = host.survey().images
    assert (seen.name, seen.mark) == (image.ref, None)
    with pytest.raises(Missing):
        host.clone(CloneSpec("desk", (image.ref,), ("raw",), True, Definition(64, 1), GUEST))


def test_a_note_that_was_never_filled_publishes_nothing(bench: LibvirtBench) -> None:
    host = bench.connected()
    bench.path(f".{NAME}.rasweb.json").write_bytes(bytes(300))
    assert host.survey().images == ()
    assert publish(host, known_bytes(), NAME, IMAGE).mark == IMAGE
    assert bench.litter() == []


@pytest.mark.parametrize("content", [b"", bytes(300)], ids=["empty", "zeros"])
def test_what_was_never_filled_is_cleared_away(bench: LibvirtBench, content: bytes) -> None:
    bench.path(".rasweb-host.json").write_bytes(content)
    bench.driver(host_id="").register()
    host = bench.connected()
    bench.path(f".{NAME}.rasweb.json").write_bytes(content)
    bench.path(".x.part.json").write_bytes(content)
    publish(host, known_bytes(), NAME, IMAGE)
    assert bench.litter() == []


FOREIGN = (".photo.mask", ".x.head", ".x.part.json", ".y.part.json")


def test_files_of_others_that_are_named_like_ours_stay(bench: LibvirtBench) -> None:
    host = bench.connected()
    for name in FOREIGN:
        bench.add_foreign_image(name)
    theirs = Note(replace(IMAGE, installation="there"), "x", "x")
    bench.path(".x.part.json").write_text(theirs.encode())
    before = {name: bench.path(name).read_bytes() for name in FOREIGN}
    publish(host, known_bytes(), NAME, IMAGE)
    host.remove(NAME, IMAGE)
    assert {name: bench.path(name).read_bytes() for name in FOREIGN} == before


def test_an_order_of_others_stays_and_one_that_was_never_filled_goes(bench: LibvirtBench) -> None:
    host = bench.connected()
    image = publish(host, known_bytes(), NAME, IMAGE)
    theirs, empty = ".desk.0123456789abcdef.vm.json", ".desk.fedcba9876543210.vm.json"
    bench.add_foreign_image(theirs)
    bench.path(empty).write_bytes(b"")
    spec = CloneSpec("desk", (image.ref,), ("raw",), True, Definition(64, 1), GUEST)
    host.clone(spec)
    host.recreate(spec)
    host.delete_guest("desk", GUEST)
    assert bench.litter() == [theirs]
    assert bench.path(theirs).read_bytes() == b"somebody else's"


def test_what_a_note_of_ours_names_goes_with_it(bench: LibvirtBench) -> None:
    host = bench.connected()
    host.stage(NAME, LARGE, IMAGE).close()
    (staged,) = host.survey().staged
    for beside in ("head", "mask"):
        bench.path(f".{staged.ref}.{beside}").write_bytes(b"x")
    bench.path(staged.ref).unlink()
    host.remove(NAME, IMAGE)
    assert bench.litter() == []


def test_a_file_in_the_place_of_a_note_is_a_conflict_and_stays(bench: LibvirtBench) -> None:
    host = bench.connected()
    beside = f".{NAME}.rasweb.json"
    bench.add_foreign_image(beside)
    with pytest.raises(Refused) as refused:
        host.stage(NAME, LARGE, IMAGE)
    assert refused.value.code == "PATH_CONFLICT"
    staged = f"win11-v1-{files.PLACEHOLDER}.raw"
    with closing(host.stage(staged, LARGE, IMAGE)) as sink, pytest.raises(Refused) as refused:
        sink.commit(NAME, IMAGE)
    assert refused.value.code == "PATH_CONFLICT"
    assert beside in refused.value.text
    assert bench.path(beside).read_bytes() == b"somebody else's"


def test_a_file_in_the_place_of_the_marker_is_a_conflict_and_stays(bench: LibvirtBench) -> None:
    marker = ".rasweb-host.json"
    bench.add_foreign_image(marker)
    with pytest.raises(Refused) as refused:
        bench.driver(host_id="").register()
    assert refused.value.code == "PATH_CONFLICT"
    assert bench.path(marker).read_bytes() == b"somebody else's"


def test_what_was_cleared_after_a_resume_reads_as_zeros(bench: LibvirtBench) -> None:
    host = bench.connected()
    content = known_bytes(size=LARGE, runs=RUNS)
    first = host.stage(NAME, LARGE, IMAGE)
    fill(first, content, RUNS)
    first.flush()
    first.close()
    second = host.stage(NAME, LARGE, IMAGE)
    assert second.token == first.token
    second.hole(0, LARGE)
    second.flush()
    assert read_all(second, LARGE) == bytes(LARGE)
    second.write(LARGE - 10, aligned(b"x" * 10))
    image = second.commit(NAME, IMAGE)
    assert bench.path(image.ref).read_bytes() == bytes(LARGE - 10) + b"x" * 10


def test_a_volume_deleted_during_the_copy_is_never_published(bench: LibvirtBench) -> None:
    host = bench.connected()
    sink = host.stage(NAME, LARGE, IMAGE)
    fill(sink, known_bytes(size=LARGE, runs=RUNS), RUNS)
    (staged,) = host.survey().staged
    bench.libvirt.storagePoolLookupByName(bench.pool).storageVolLookupByName(staged.ref).delete(0)
    with pytest.raises(DriverError):
        sink.commit(NAME, IMAGE)
    sink.abort()
    assert host.survey().images == ()
    assert bench.litter() == []


def test_a_volume_that_was_cut_short_is_never_published(bench: LibvirtBench) -> None:
    host = bench.connected()
    sink = host.stage(NAME, LARGE, IMAGE)
    (staged,) = host.survey().staged
    with bench.path(staged.ref).open("r+b") as file:
        file.truncate(LARGE - 1)
    with pytest.raises(DriverError) as fault:
        sink.commit(NAME, IMAGE)
    assert fault.value.code == "CHECKSUM_MISMATCH"
    sink.abort()
    assert host.survey().images == ()
