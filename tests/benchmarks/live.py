"""``python -m tests.benchmarks.live``: from a change in one process to all browsers, against the started product."""

from __future__ import annotations

import argparse
import asyncio
import os
import tempfile
import time
from pathlib import Path
from statistics import quantiles

from rasweb.live import GROUP
from rasweb.relay import Relay
from tests.product import Product
from tests.rasweb.test_installations import open_page, signed_in
from tests.websocket import WebSocket

TOPIC = "providers"
POKE = {"type": "poke", "topics": {TOPIC: [["provider", 1]]}}


class Audience:
    """Browsers that show the providers. Remembers when each got its latest frame, on the monotonic clock."""

    def __init__(self, base_url: str, cookie: str, size: int) -> None:
        loop = asyncio.get_running_loop()
        self.seen = [0.0] * size
        self.frames = 0
        self._browsers = [WebSocket(base_url, f"/ws/?topic={TOPIC}", cookie) for _ in range(size)]
        for number, browser in enumerate(self._browsers):
            browser.next()
            loop.add_reader(browser.fileno(), self._read, browser, number)

    def _read(self, browser: WebSocket, number: int) -> None:
        data = os.read(browser.fileno(), 1 << 20)
        if not data:
            raise ConnectionError("The server closed a socket.")
        if data[0] & 0x0F == 9:
            browser.pong(data[2 : 2 + data[1]])
        if b'"topic"' in data:
            self.seen[number] = time.monotonic()
            self.frames += 1

    async def reached(self, since: float) -> None:
        async with asyncio.timeout(30):
            while min(self.seen) < since:
                await asyncio.sleep(0.001)


async def measure(product: Product, browsers: int, seconds: float) -> None:
    relay = Relay(str(product.data_dir))
    audience = Audience(product.base_url, signed_in(product), browsers)
    delays: list[float] = []
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        await asyncio.sleep(0.5)
        sent = time.monotonic()
        await relay.group_send(GROUP, POKE)
        await audience.reached(sent)
        delays += [seen - sent for seen in audience.seen]
    cuts = quantiles(delays, n=100)
    print(f"{browsers} browsers, a change every half second: p50 {_ms(cuts[49])}, p99 {_ms(cuts[98])}")
    await _storm(product, relay, audience, seconds)


async def _storm(product: Product, relay: Relay, audience: Audience, seconds: float) -> None:
    before, began, audience.frames, rate = _cpu(product), time.monotonic(), 0, 100
    for _ in range(int(seconds * rate)):
        await relay.group_send(GROUP, POKE)
        await asyncio.sleep(1 / rate)
    sent = time.monotonic()
    await relay.group_send(GROUP, POKE)
    await audience.reached(sent)
    passed = time.monotonic() - began
    print(
        f"{rate} changes a second: the last arrived everywhere after {_ms(max(audience.seen) - sent)}, "
        f"{audience.frames / len(audience.seen) / passed:.1f} frames a second each, "
        f"web process {100 * (_cpu(product) - before) / passed:.0f} % of one core"
    )


def _cpu(product: Product) -> float:
    """Seconds of processor time the web process has used."""
    fields = Path(f"/proc/{product.child('web')}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.live", description=__doc__)
    parser.add_argument("--browsers", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=10, help="of each of the two measurements")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="rasweb-bench-") as folder:
        product = Product(Path(folder) / "data").start()
        try:
            with open_page(product):
                asyncio.run(measure(product, options.browsers, options.seconds))
        finally:
            product.close()


if __name__ == "__main__":
    main()
