"""What a host knows of its pool is what it saw when it looked last."""

from __future__ import annotations

import time
from contextlib import suppress
from threading import Event, Thread

import pytest

from providers_app.drivers import Unreachable
from tests.lab.bench import LibvirtBench


@pytest.mark.parametrize("mountpoint", [True, False])
def test_a_pool_that_the_host_looked_at_while_it_was_away_is_found_again(
    bench: LibvirtBench, mountpoint: bool
) -> None:
    look_while_away(bench, mountpoint)
    content = bench.root / "elsewhere"
    for _ in range(2):
        with pytest.raises(Unreachable, match="not mounted"):
            bench.connected()
    if mountpoint:
        assert list(bench.folder.iterdir()) == []
        bench.folder.rmdir()
    content.rename(bench.folder)
    survey = bench.connected().survey()
    assert (survey.host_id, bench.litter()) == (bench.settings["host_id"], [])


def test_a_volume_is_deleted_although_somebody_begins_to_write_to_it(bench: LibvirtBench) -> None:
    pool = bench.connected().host.pool
    for number in range(60):
        volume, begun, over = pool.create(f"v{number}", 1 << 20), Event(), Event()
        others = Thread(target=begin_again_and_again, args=(bench, volume.name, begun, over))
        others.start()
        assert begun.wait(5)
        time.sleep(0.005)  # anywhere in one of the next uploads
        try:
            volume.delete()
        finally:
            over.set()
            others.join()


def begin_again_and_again(bench: LibvirtBench, name: str, begun: Event, over: Event) -> None:
    """Upload a little, as an administrator with virsh, until told or the volume is gone."""
    import libvirt

    link = bench.libvirt
    volume = link.storagePoolLookupByName(bench.pool).storageVolLookupByName(name)
    with suppress(libvirt.libvirtError):
        while not over.is_set():
            stream = link.newStream(0)
            volume.upload(stream, 0, 0, 0)
            begun.set()
            stream.send(bytes(1 << 16))
            stream.finish()


def look_while_away(bench: LibvirtBench, mountpoint: bool) -> None:
    """The host looks into an empty folder, and has none at all afterwards unless it is a ``mountpoint``."""
    bench.move_away()
    bench.folder.mkdir()
    bench.libvirt.storagePoolLookupByName(bench.pool).refresh(0)
    if not mountpoint:
        bench.folder.rmdir()
