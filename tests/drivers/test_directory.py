"""What is special about hosts that are folders: their layout, and what others may have put there."""

from __future__ import annotations

import json
import os
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from providers_app.drivers import VM, CloneSpec, Driver, Image, Missing, Refused, Unreachable
from tests.drivers.benches import GUEST, IMAGE, NAME, SIZE, DirectoryBench, known_bytes, write_sparse


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[DirectoryBench]:
    made = DirectoryBench(tmp_path)
    yield made
    made.close()


@pytest.fixture
def vm(bench: DirectoryBench) -> Path:
    """The folder of a source VM."""
    bench.add_vm("win", known_bytes())
    return bench.folder / "vms" / "win"


def only_vm(host: Driver) -> VM:
    (found,) = host.survey().vms
    return found


def test_the_folder_of_a_host_holds_what_is_documented(
    bench: DirectoryBench, image: Image, spec: CloneSpec, host: Driver
) -> None:
    host.clone(replace(spec, linked=True))
    host.make_working_copy(replace(spec, name="copy"))
    assert set(bench.everything()) == {
        ".rasweb-host.json",
        ".rasweb.lock",
        f"images/{NAME}",
        f"images/.{NAME}.rasweb.json",
        "guests/desk 1/.rasweb.json",
        "guests/desk 1/disk0.qcow2",
        "guests/desk 1/vm.json",
        "vms/copy/.rasweb.json",
        "vms/copy/disk0.raw",
        "vms/copy/vm.json",
    }
    marker = json.loads(bench.everything()[".rasweb-host.json"])
    assert marker == {"format": 1, "id": host.survey().host_id}
    assert (bench.folder / ".rasweb-host.json").stat().st_mode & 0o777 == 0o644
    definition = json.loads(bench.everything()["guests/desk 1/vm.json"])
    assert definition == {
        "memory_mib": 2048,
        "vcpus": 2,
        "network": "lan",
        "disks": [{"file": "disk0.qcow2", "format": "qcow2"}],
        "version": 0,
    }


def test_a_hypervisors_group_may_write_guests_and_only_read_images(
    bench: DirectoryBench, host: Driver, image: Image, spec: CloneSpec
) -> None:
    host.clone(spec)
    host.clone(replace(spec, name="desk 2", linked=True, mark=replace(GUEST, owner="2")))
    modes = {name: (bench.folder / name).stat().st_mode & 0o777 for name in bench.everything()}
    assert modes[f"images/{NAME}"] == 0o640
    assert modes["guests/desk 1/disk0.raw"] == modes["guests/desk 2/disk0.qcow2"] == 0o660
    assert (bench.folder / "guests/desk 1").stat().st_mode & 0o777 == 0o770
    assert [name for name, mode in modes.items() if mode & 0o007] == [".rasweb-host.json"]


def test_a_linked_clone_names_its_base_by_a_relative_path(
    bench: DirectoryBench, host: Driver, spec: CloneSpec
) -> None:
    host.clone(replace(spec, linked=True))
    head = (bench.folder / "guests/desk 1/disk0.qcow2").read_bytes()[:1024]
    assert f"../../images/{NAME}".encode() in head
    assert str(bench.folder).encode() not in head


def test_registering_needs_a_folder(bench: DirectoryBench, tmp_path: Path) -> None:
    with pytest.raises(Refused, match="There is no folder") as refused:
        bench.driver(path=str(tmp_path / "missing")).register()
    assert refused.value.code == "PREREQUISITE"
    (tmp_path / "file").write_text("")
    with pytest.raises(Refused, match="not an ordinary"):
        bench.driver(path=str(tmp_path / "file")).register()


def test_registering_makes_only_what_is_missing(bench: DirectoryBench, tmp_path: Path) -> None:
    folder = tmp_path / "new"
    (folder / "vms" / "win").mkdir(parents=True)
    (folder / "notes.txt").write_text("mine")
    bench.driver(path=str(folder)).register()
    found = sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))
    assert found == [".rasweb-host.json", ".rasweb.lock", "guests", "images", "notes.txt", "vms", "vms/win"]


@pytest.mark.parametrize("room", ["vms", "images", "guests"])
def test_a_room_that_is_a_link_is_refused(bench: DirectoryBench, tmp_path: Path, room: str) -> None:
    (bench.folder / room).rmdir()
    (bench.folder / room).symlink_to(tmp_path)
    for call in (bench.connected, bench.driver().register):
        with pytest.raises(Refused, match="links are not followed"):
            call()


def test_a_room_that_is_gone_is_no_empty_room(bench: DirectoryBench) -> None:
    (bench.folder / "images").rmdir()
    with pytest.raises(Unreachable, match="no folder images"):
        bench.connected()


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"format": 2, "id": "x"}', '{"format": 1, "id": 5}', "[" * 100_000]
)
def test_a_marker_that_can_not_be_read_is_refused(bench: DirectoryBench, content: str) -> None:
    (bench.folder / ".rasweb-host.json").write_text(content)
    with pytest.raises(Refused) as refused:
        bench.connected()
    assert refused.value.code == "PREREQUISITE"


def test_a_path_through_a_link_inside_the_roots_is_the_real_folder(
    bench: DirectoryBench, tmp_path: Path
) -> None:
    (tmp_path / "link").symlink_to(bench.folder)
    assert bench.connected(path=str(tmp_path / "link")).survey().host_id == bench.connected().survey().host_id


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"memory_mib": "much"}',
        b'{"memory_mib": true}',
        b'{"memory_mib": 1e400}',
        b'{"memory_mib": -5}',
        b'{"vcpus": 99999999999999999999}',
        b'{"network": ["lan"]}',
        b'{"network": "\\u202elan"}',
        b" " * 100_000,
    ],
)
def test_a_definition_that_makes_no_sense_is_the_vms_problem(vm: Path, host: Driver, content: bytes) -> None:
    (vm / "vm.json").write_bytes(content)
    found = only_vm(host)
    assert "vm.json" in found.problem
    assert len(found.disks) == 1
    assert found.problem.isprintable()


def test_a_vm_without_a_definition_gets_a_small_one(vm: Path, host: Driver) -> None:
    (vm / "vm.json").unlink()
    found = only_vm(host)
    assert (found.memory_mib, found.vcpus, found.network, found.problem) == (1024, 1, "", "")


def a_link(path: Path) -> None:
    path.symlink_to("/etc/passwd")


def a_pipe(path: Path) -> None:
    os.mkfifo(path)


def a_folder(path: Path) -> None:
    path.mkdir()


def a_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))


@pytest.mark.parametrize("odd", [a_link, a_pipe, a_folder, a_socket])
@pytest.mark.parametrize("name", ["disk1.raw", "vm.json"])
def test_what_is_no_file_is_the_vms_problem(
    vm: Path, host: Driver, odd: Callable[[Path], None], name: str
) -> None:
    (vm / name).unlink(missing_ok=True)
    odd(vm / name)
    assert name in only_vm(host).problem
    with pytest.raises((Missing, Refused)):
        host.open_source(f"vms/win/{name}")


@pytest.mark.parametrize(
    "name",
    ["bell\a", "right\u202eto", "line\nbreak", "undecodable\udcff", "x" * 150],
    ids=["bell", "bidi", "line", "bytes", "long"],
)
def test_hostile_names_are_escaped_and_a_problem(
    bench: DirectoryBench, vm: Path, host: Driver, name: str
) -> None:
    (bench.folder / "vms" / name).mkdir()
    write_sparse(vm / f"{name}.raw", known_bytes())
    write_sparse(bench.folder / "images" / name, known_bytes())
    (bench.folder / "guests" / name).mkdir()
    survey = host.survey()
    shown = [text for found in (*survey.vms, *survey.guests) for text in (found.name, found.ref)]
    shown += [text for image in survey.images for text in (image.name, image.ref)]
    assert all(text.isprintable() and len(text) < 120 for text in shown)
    json.dumps(shown).encode()
    assert all(found.problem for found in (*survey.vms, *survey.guests))
    assert survey.images[0].mark is None


def test_html_in_a_name_is_only_text(bench: DirectoryBench, host: Driver) -> None:
    name = "<b onload=alert(1)>"
    bench.add_vm(name, known_bytes())
    assert (only_vm(host).name, only_vm(host).problem) == (name, "")


def test_a_vm_without_disks_can_not_be_a_source(bench: DirectoryBench, host: Driver) -> None:
    (bench.folder / "vms" / "empty").mkdir()
    (bench.folder / "vms" / "file").write_text("")
    (bench.folder / "vms" / ".hidden").mkdir()
    (bench.folder / "vms" / "link").symlink_to("/etc")
    found = {vm.name: vm.problem for vm in host.survey().vms}
    assert found.keys() == {"empty", "link"}
    assert "no disk image" in found["empty"]
    assert "link" in found["link"]


def test_disks_come_in_the_order_of_their_names(vm: Path, host: Driver) -> None:
    for name in ("disk10.raw", "disk2.raw", "a.raw", "readme.txt", ".hidden.raw"):
        write_sparse(vm / name, known_bytes())
    names = [disk.name for disk in only_vm(host).disks]
    assert names == ["a.raw", "disk0.raw", "disk2.raw", "disk10.raw"]


def test_a_hostile_image_is_refused_before_any_tool_sees_it(vm: Path, host: Driver) -> None:
    (vm / "disk0.raw").write_bytes(b"QFI\xfb" + bytes(200))
    (vm / "disk1.qcow2").write_bytes(bytes(4096))
    found = only_vm(host)
    assert found.disks == ()
    assert "is named raw" in found.problem
    assert "does not begin like one" in found.problem
    for name in ("disk0.raw", "disk1.qcow2"):
        with pytest.raises(Refused) as refused:
            host.open_source(f"vms/win/{name}")
        assert refused.value.code == "PREREQUISITE"


def test_a_source_on_a_backing_file_is_refused(vm: Path, host: Driver) -> None:
    subprocess.run(
        ["qemu-img", "create", "-q", "-f", "qcow2", "-b", "disk0.raw", "-F", "raw", "disk1.qcow2"],
        cwd=vm,
        check=True,
    )
    assert "backing file" in only_vm(host).problem
    with pytest.raises(Refused, match="backing file"):
        host.open_source("vms/win/disk1.qcow2")


def test_a_foreign_overlay_keeps_an_image(
    bench: DirectoryBench, vm: Path, host: Driver, image: Image
) -> None:
    for number, base in enumerate((f"../../images/{NAME}", str(bench.folder / "images" / NAME))):
        name = f"snapshot{number}"
        subprocess.run(
            ["qemu-img", "create", "-q", "-f", "qcow2", "-b", base, "-F", "raw", name], cwd=vm, check=True
        )
        with pytest.raises(Refused, match="win") as refused:
            host.remove(NAME, IMAGE)
        assert refused.value.code == "IN_USE"
        (vm / name).unlink()
    host.remove(NAME, IMAGE)


def test_a_guest_that_a_hypervisor_runs_is_left_alone(
    bench: DirectoryBench, host: Driver, spec: CloneSpec
) -> None:
    guest = host.clone(spec)
    with running(bench.path(guest.disks[0].ref)):
        assert [vm.power for vm in host.survey().guests] == ["on"]
        for call in (lambda: host.recreate(spec), lambda: host.delete_guest(spec.name, GUEST)):
            with pytest.raises(Refused, match="running") as refused:
                call()
            assert refused.value.code == "IN_USE"
    assert host.survey().guests == (guest,)
    assert bench.litter() == []
    host.delete_guest(spec.name, GUEST)


@contextmanager
def running(path: Path) -> Iterator[None]:
    """Hold an image open as QEMU does."""
    command = ["qemu-io", "-f", "raw", str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as tool:
        assert tool.stdin
        assert tool.stdout
        tool.stdin.write(b"length\n")
        tool.stdin.flush()
        assert tool.stdout.read(1)
        yield
        tool.communicate(b"quit\n")


def test_a_mark_without_an_image_is_no_image(bench: DirectoryBench, host: Driver, image: Image) -> None:
    (bench.folder / "images" / NAME).unlink()
    assert host.survey().images == ()
    with pytest.raises(Missing) as missing:
        host.open_source(image.ref)
    assert missing.value.code == "SOURCE_MISSING"


@pytest.mark.parametrize(
    "content", [b"", b"{}", b"[]", b'{"format": 1, "mark": {"installation": 5}}', b"[" * 99_999]
)
def test_an_image_whose_mark_can_not_be_read_is_not_ours(
    bench: DirectoryBench, host: Driver, image: Image, content: bytes
) -> None:
    (bench.folder / "images" / f".{NAME}.rasweb.json").write_bytes(content)
    assert host.survey().images[0].mark is None
    with pytest.raises(Refused) as refused:
        host.remove(NAME, IMAGE, force=True)
    assert refused.value.code == "NOT_OURS"
    assert (bench.folder / "images" / NAME).read_bytes() == known_bytes()


def test_a_link_with_our_name_is_a_conflict(bench: DirectoryBench, host: Driver, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_bytes(b"precious")
    (bench.folder / "images" / NAME).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(Refused) as refused:
        host.stage(NAME, SIZE, IMAGE)
    assert refused.value.code == "PATH_CONFLICT"
    (bench.folder / "guests" / "desk 1").symlink_to(tmp_path)
    with pytest.raises(Refused):
        host.delete_guest("desk 1", GUEST)
    assert (tmp_path / "elsewhere").read_bytes() == b"precious"


def test_what_others_put_into_a_guest_goes_with_it_but_never_beyond_a_link(
    bench: DirectoryBench, host: Driver, spec: CloneSpec, tmp_path: Path
) -> None:
    host.clone(spec)
    guest = bench.folder / "guests" / "desk 1"
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "file").write_text("mine")
    (guest / "nvram").mkdir()
    (guest / "nvram" / "link").symlink_to(tmp_path / "precious")
    (guest / "vars.fd").write_text("x")
    host.delete_guest(spec.name, GUEST)
    assert not guest.exists()
    assert (tmp_path / "precious" / "file").read_text() == "mine"


def test_names_that_only_look_like_ours_are_left_alone(
    bench: DirectoryBench, host: Driver, spec: CloneSpec
) -> None:
    folder = bench.folder / "guests" / ".desk 1.0123456789abcdef.new"
    folder.mkdir()
    (folder / "disk0.raw").write_text("mine")
    part = bench.folder / "images" / f".{NAME}.0123456789abcdef.part"
    part.write_text("mine")
    host.clone(spec)
    host.delete_guest(spec.name, GUEST)
    host.stage(NAME, SIZE, IMAGE).close()
    host.remove(NAME, IMAGE)
    assert (folder / "disk0.raw").read_text() == "mine"
    assert part.read_text() == "mine"


def test_a_published_image_never_looks_like_a_partial_one(host: Driver) -> None:
    with pytest.raises(Refused):
        host.stage("win.0123456789abcdef.part", SIZE, IMAGE)
