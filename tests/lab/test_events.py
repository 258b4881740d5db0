"""What happens on a host is seen at once, long before the next check would come."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from providers_app.drivers.libvirt import events
from providers_app.drivers.watching import Outbox, Watch, Watches
from tests.faults.bench import SHORT
from tests.lab.bench import LibvirtBench
from tests.lab.boot import boot_sector
from tests.lab.hosts import Lab
from tests.product import Product, alive, children, wait_for

NEVER = 600
WATCHING = b"providers_app.drivers.watching"
PATIENCE = 180.0  # never reached on a machine that is not overloaded


pytestmark = pytest.mark.product


@pytest.fixture
def product(lab: Lab, tmp_path: Path) -> Iterator[Product]:
    rare = {**SHORT, "RASWEB_CHECK_INTERVAL": str(NEVER), "RASWEB_ALLOWED_SOCKETS": str(lab.base)}
    started = Product(tmp_path / "data", rare)
    yield started
    started.close()


class Eyes:
    """What rasweb's rows say of its only provider."""

    def __init__(self, product: Product) -> None:
        self._file = f"file:{product.data_dir}/rasweb.sqlite3?mode=ro"

    def look(self) -> tuple[str, dict[str, str]]:
        """Its reachability, and the power of each VM."""
        with contextlib.closing(sqlite3.connect(self._file, uri=True, timeout=20)) as rows:
            reach, vms = rows.execute(
                "SELECT p.reachability, i.vms FROM providers_app_provider p "
                "LEFT JOIN providers_app_inventory i ON i.provider_id = p.id"
            ).fetchone()
        return reach, {vm["name"]: vm["power"] for vm in json.loads(vms or "[]")}

    def until(self, reach: str, **power: str) -> None:
        wait_for(lambda: self.look() == (reach, power), PATIENCE, f"{reach} {power}")


def test_what_happens_on_a_host_is_seen_without_waiting_for_a_check(
    product: Product, bench: LibvirtBench
) -> None:
    content = boot_sector("BOOT-OK").ljust(1 << 20, b"\0")
    bench.add_vm("golden", content, [(0, 4096)])
    product.start()
    parts = ("transport=local", f"socket={bench.host.socket}", f"pool={bench.pool}")
    words = [word for part in parts for word in ("--set", part)]
    product.run("provider", "add", "hv1", "--kind", "libvirt", *words)
    eyes = Eyes(product)
    eyes.until("online", golden="off")

    bench.libvirt.lookupByName("golden").create()
    eyes.until("online", golden="on")
    bench.libvirt.lookupByName("golden").destroy()
    eyes.until("online", golden="off")

    bench.host.power_cut()
    eyes.until("not_available", golden="off")
    bench.host.boot()
    eyes.until("online", golden="off")

    (watching,) = [pid for pid in children(product.child("worker")) if WATCHING in command(pid)]
    product.close()
    wait_for(lambda: not alive(watching), what="the end of the process that watches")
    assert "Traceback" not in product.output


def command(pid: int) -> bytes:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    return b""


def test_a_frozen_daemon_is_noticed_and_heard_at_once_when_it_goes_on(
    bench: LibvirtBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "KEEPALIVE", (1, 1))
    outbox = Outbox()
    watches = Watches(outbox)
    host = {"id": 5, "name": "hv1", "kind": "libvirt", "settings": bench.settings, "secrets": {}}
    watches.follow([{**host, "since": None}])
    try:
        assert outbox.take(PATIENCE) == [5]
        bench.host.freeze()
        assert outbox.take(PATIENCE) == [5]
        assert outbox.take(1.5) == []
    finally:
        bench.host.thaw()
    assert outbox.take(PATIENCE) == [5]
    watches.follow([])
    wait_for(lambda: not any(isinstance(thread, Watch) for thread in threading.enumerate()))
