"""Images and disks that others use, by whatever way: they are kept until that is over."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from providers_app.drivers import Driver, DriverError, Refused
from tests.lab.bench import LibvirtBench
from tests.lab.desk import DESK, MIB, first, remove_first, spec, stand_on
from tests.product import wait_for


def test_a_disk_of_a_guest_that_others_stand_on_is_kept(bench: LibvirtBench, host: Driver) -> None:
    (guest,) = host.survey().guests
    stand_on(bench.path(guest.disks[0].ref), "qcow2", bench.folder / "theirs.qcow2")
    for delete in (lambda: host.delete_guest("desk", DESK), lambda: host.recreate(spec(host, 2))):
        with pytest.raises(Refused, match=r"theirs\.qcow2") as refused:
            delete()
        assert refused.value.code == "IN_USE"
    assert bench.path(guest.disks[0].ref).exists()


def test_an_image_that_a_vm_names_by_pool_and_volume_is_in_use(bench: LibvirtBench, host: Driver) -> None:
    host.delete_guest("desk", DESK)
    name_by_pool(bench, bench.pool, first(host))
    with pytest.raises(Refused, match="theirs"):
        remove_first(host)


def name_by_pool(bench: LibvirtBench, pool: str, volume: str, form: str = "raw") -> None:
    """Define a VM whose disk is a volume of a pool, and no file."""
    file = f"<source file='{bench.inner}/{volume}'/>"
    named = {
        "<disk type='file'": "<disk type='volume'",
        file: f"<source pool='{pool}' volume='{volume}'/>",
    }
    bench.define("theirs", volume, form=form, edits=named)


def test_an_image_that_a_vm_has_by_another_path_is_in_use(bench: LibvirtBench, host: Driver) -> None:
    host.delete_guest("desk", DESK)
    bench.define("theirs", f"../{bench.pool}/{first(host)}")
    with pytest.raises(Refused, match="theirs"):
        remove_first(host)


def overlay(bench: LibvirtBench, host: Driver, folder: Path) -> None:
    host.delete_guest("desk", DESK)
    folder.mkdir(exist_ok=True)
    stand_on(bench.path(first(host)), "raw", folder / "o.qcow2")


@pytest.fixture
def other(bench: LibvirtBench) -> Iterator[Path]:
    """The folder of another pool, which has a link to ours."""
    folder = bench.host.images / f"{bench.pool}-other"
    folder.mkdir()
    (folder / "link").symlink_to(bench.folder)
    pool = bench.libvirt.storagePoolDefineXML(
        f"<pool type='dir'><name>{folder.name}</name><target><path>{folder}</path></target></pool>"
    )
    pool.create()
    yield folder
    if pool.isActive():
        pool.destroy()
    pool.undefine()


def test_an_overlay_that_came_to_another_pool_keeps_its_base(
    bench: LibvirtBench, host: Driver, other: Path
) -> None:
    overlay(bench, host, other)
    with pytest.raises(Refused, match=r"o\.qcow2"):
        remove_first(host)


def test_an_image_is_kept_while_another_pool_can_not_be_looked_at(
    bench: LibvirtBench, host: Driver, other: Path
) -> None:
    host.delete_guest("desk", DESK)
    (other / "theirs.raw").write_bytes(bytes(MIB))
    pool = bench.libvirt.storagePoolLookupByName(other.name)
    pool.refresh()
    origin = pool.storageVolLookupByName("theirs.raw")
    wanted = (
        "<volume><name>c.qcow2</name><capacity>0</capacity><target><format type='qcow2'/></target></volume>"
    )
    copying = threading.Thread(target=pool.createXMLFrom, args=(wanted, origin, 0))
    with bench.host.copies_held():
        copying.start()
        wait_for(lambda: "c.qcow2" in pool.listVolumes(), 10, "the copy")
        with pytest.raises(DriverError, match=other.name) as busy:
            remove_first(host)
        assert (busy.value.code, busy.value.permanent) == ("BUSY", False)
    copying.join()
    remove_first(host)


def test_a_pool_whose_folder_is_gone_holds_nothing_up(bench: LibvirtBench, host: Driver, other: Path) -> None:
    shutil.rmtree(other)
    host.delete_guest("desk", DESK)
    assert (host.survey().guests, bench.litter()) == ((), [])


@pytest.mark.parametrize("way", ["..", "link"])
def test_an_overlay_that_names_its_base_by_another_path_keeps_it(
    bench: LibvirtBench, host: Driver, other: Path, way: str
) -> None:
    host.delete_guest("desk", DESK)
    base = other / "link" if way == "link" else Path("..", bench.pool)
    stand_on(base / first(host), "raw", other / "o.qcow2")
    with pytest.raises(Refused, match=r"o\.qcow2"):
        remove_first(host)


def test_an_overlay_in_a_stopped_pool_keeps_all_images(
    bench: LibvirtBench, host: Driver, other: Path
) -> None:
    overlay(bench, host, other)
    bench.libvirt.storagePoolLookupByName(other.name).destroy()
    name_by_pool(bench, other.name, "o.qcow2", "qcow2")
    with pytest.raises(Refused, match=r"o\.qcow2.*theirs"):
        remove_first(host)


def test_an_overlay_on_one_that_no_host_can_look_into_keeps_all_images(
    bench: LibvirtBench, host: Driver
) -> None:
    folder = bench.host.images / f"{bench.pool}-hidden"
    overlay(bench, host, folder)
    stand_on(folder / "o.qcow2", "qcow2", bench.folder / "top.qcow2")
    with pytest.raises(Refused, match=r"o\.qcow2.*top\.qcow2"):
        remove_first(host)


def test_a_disk_that_no_host_can_look_into_keeps_all_images(bench: LibvirtBench, host: Driver) -> None:
    folder = bench.host.images / f"{bench.pool}-hidden"
    overlay(bench, host, folder)
    bench.define("theirs", f"../{folder.name}/o.qcow2", form="qcow2")
    with pytest.raises(Refused, match="no storage pool") as refused:
        remove_first(host)
    assert refused.value.code == "IN_USE"
    bench.libvirt.lookupByName("theirs").undefine()
    remove_first(host)
