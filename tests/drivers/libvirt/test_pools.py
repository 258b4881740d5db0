"""What a host knows of its pool is what it saw when it looked last."""

from __future__ import annotations

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


def look_while_away(bench: LibvirtBench, mountpoint: bool) -> None:
    """The host looks into an empty folder, and has none at all afterwards unless it is a ``mountpoint``."""
    bench.move_away()
    bench.folder.mkdir()
    bench.libvirt.storagePoolLookupByName(bench.pool).refresh(0)
    if not mountpoint:
        bench.folder.rmdir()
