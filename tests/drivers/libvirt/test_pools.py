"""What a host knows of its pool is what it saw when it looked last."""

from __future__ import annotations

import pytest

from providers_app.drivers import Unreachable
from tests.lab.bench import LibvirtBench


def test_a_pool_that_the_host_looked_at_while_it_was_not_mounted_is_found_again(bench: LibvirtBench) -> None:
    content = bench.move_away()
    bench.folder.mkdir()
    bench.libvirt.storagePoolLookupByName(bench.pool).refresh(0)
    with pytest.raises(Unreachable, match="not mounted"):
        bench.connected()
    bench.folder.rmdir()
    content.rename(bench.folder)
    assert bench.connected().survey().host_id == bench.settings["host_id"]
