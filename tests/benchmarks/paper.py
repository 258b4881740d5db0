"""``python -m tests.benchmarks.paper``: how long many hosts would take, by the way the bytes go. Computed only.

Everything is in units of one copy, ``C = data / link``. A block is what is passed on at once.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil, isqrt, log2

GIB = 1 << 30
BLOCK = 4 << 20
HOSTS = (10, 30, 100, 300, 1000)


@dataclass(frozen=True)
class Site:
    """``link`` in bytes per second, the same for the controller and each host; ``data`` in bytes; ``cpu`` in seconds of
    one processor for each GiB and host, on a controller with ``cores``."""

    link: float
    data: float
    cpu: float
    cores: int

    @property
    def copy(self) -> float:
        return self.data / self.link

    @property
    def block(self) -> float:
        return BLOCK / self.link

    def star(self, hosts: int) -> float:
        """The controller sends all: its link, or its processors."""
        return max(hosts * self.copy, hosts * self.data / GIB * self.cpu / self.cores)

    def holders(self, hosts: int) -> float:
        """The controller sends to √n holders; each passes it on when it has all of it."""
        holders = isqrt(hosts)
        return (holders + ceil(hosts / holders) - 1) * self.copy

    def holders_at_once(self, hosts: int) -> float:
        """The same, but each passes on every block as it comes."""
        holders = isqrt(hosts)
        return max(holders, ceil(hosts / holders) - 1) * self.copy + self.block

    def tree(self, hosts: int) -> float:
        """Everybody who has all of it sends to one more at a time, the controller too."""
        return ceil(log2(hosts + 1)) * self.copy

    def tree_at_once(self, hosts: int) -> float:
        """Everybody sends every block to two others as it comes; the controller too."""
        return 2 * self.copy + 2 * ceil(log2(hosts + 2) - 1) * self.block


def table(site: Site, hosts: Sequence[int] = HOSTS) -> str:
    ways: dict[str, Callable[[int], float]] = {
        "star (what rasweb does)": site.star,
        "√n holders, whole image first": site.holders,
        "√n holders, block by block": site.holders_at_once,
        "tree of two, whole image first": site.tree,
        "tree of two, block by block": site.tree_at_once,
    }
    head = "| " + " | ".join(["hosts", *map(str, hosts)]) + " |"
    rule = "|---|" + "---:|" * len(hosts)
    rows = [
        "| " + " | ".join([name, *(duration(way(count)) for count in hosts)]) + " |"
        for name, way in ways.items()
    ]
    return "\n".join([head, rule, *rows])


def duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.paper", description=__doc__)
    parser.add_argument("--gbps", type=float, default=10, help="gigabits per second of each link (10)")
    parser.add_argument("--gib", type=float, default=50, help="size of the image in GiB (50)")
    parser.add_argument("--share", type=float, default=0.5, help="part of it that has to travel (0.5)")
    parser.add_argument(
        "--cpu", type=float, default=1.2, help="seconds of a processor per GiB and host (1.2)"
    )
    parser.add_argument("--cores", type=int, default=4, help="processors of the controller (4)")
    options = parser.parse_args()
    data = options.gib * GIB * options.share
    print(table(Site(options.gbps * 1e9 / 8, data, options.cpu, options.cores)))


if __name__ == "__main__":
    main()
