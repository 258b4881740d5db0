"""Real libvirt hosts of a lab: one, and three at once."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from templates_app.transfer.job import Address
from templates_app.transfer.process import KEPT_MEMORY
from tests.lab.bench import LibvirtBench
from tests.lab.hosts import LONGEST_BASE, Lab, obstacle
from tests.lab.links import linked

from .measure import Found, flush, run_together
from .peers import CP
from .rounds import ENGINE, LIMIT, Case, Entry
from .site import Site, half_full, site, thinned

HOSTS = 3
LINKED, MANY_HOLES = "libvirt, links", "libvirt, many holes"
_UPLOAD = (
    'virsh -q -c "$1" vol-create-as "$2" copy.raw "$4" --format raw --allocation 0 && '
    'virsh -q -c "$1" vol-upload --sparse copy.raw "$3" --pool "$2"'
)
_PROOF = ' && virsh -q -c "$1" vol-download --sparse copy.raw "$5" --pool "$2" && cmp "$3" "$5"'


@dataclass(frozen=True)
class Host:
    """A pool to copy to, and the way to its daemon as settings and as libvirt's own address."""

    pool: LibvirtBench
    settings: Mapping[str, object]
    uri: str


@contextmanager
def libvirt_hosts(
    folder: Path, size: int, share: float, *, times: int = 1, bits: int = 0, many_holes: bool = False
) -> Iterator[Case]:
    """An image of so many ``times`` the size. ``bits``: what the link of each host takes in a second; 0 for hosts on
    this machine, over unix sockets. ``many_holes``: one after each 256 KiB."""
    size *= times
    name = LINKED if bits else MANY_HOLES if many_holes else "libvirt"
    counts = (1,) if many_holes else (1, HOSTS)
    if why := obstacle():
        yield Case(name, "", share, [], notes=[f"Not measured: {why}."])
        return
    base = folder / "lab"
    with ExitStack() as stack:
        place = stack.enter_context(site(folder, "libvirt"))
        lab = stack.enter_context(Lab(max(counts), base if len(str(base)) <= LONGEST_BASE else None))
        pools = [LibvirtBench(place.folder, host) for host in lab.hosts]
        for pool in pools:
            stack.callback(pool.close)
        source = place.image("half", thinned(size, size // 2) if many_holes else half_full(size), size)
        place.seal(source)
        if bits:
            addresses = stack.enter_context(linked(lab.hosts, bits))
            hosts = [_behind_link(pool, address) for pool, address in zip(pools, addresses, strict=True)]
            where = f"with a link of {bits / 10**9:g} Gbit/s each, over TCP without encryption"
        else:
            hosts = [Host(pool, pool.settings, pool.host.uri) for pool in pools]
            where = "on this machine, over unix sockets"
        about = (
            f"An image of {size >> 20} MiB, half of it holes{', 256 KiB each' if many_holes else ''}, "
            f"to libvirt hosts {where}. "
            "Reading back asks the host, which may answer from its memory."
        )
        entries = [entry for count in counts for entry in _entries(place, source, hosts[:count])]
        if bits:
            entries.append(Entry("the link itself", partial(_pass, place.data(source), bits), LIMIT))
        else:
            entries += [_cp(place, source, hosts[:count]) for count in counts]
        if name == "libvirt":
            entries += [_alone(place, source, hosts[:count]) for count in counts]
        yield Case(name, about, share, entries, partial(_clear, place, pools))


def _behind_link(pool: LibvirtBench, address: str) -> Host:
    way = {"transport": "tcp", "plain_tcp": True, "host": address}
    return Host(pool, {**pool.settings, **way}, f"qemu+tcp://{address}/system")


def _pass(data: int, bits: int) -> Found:
    return Found(wall=data * 8 / bits)


def _cp(place: Site, source: Path, hosts: Sequence[Host]) -> Entry:
    copies = [host.pool.folder / "copy.raw" for host in hosts]
    work = partial(CP.copy, source, copies)
    return Entry(f"cp into the pool, {_count(hosts)}", work, prepare=partial(place.fresh, source, 0))


def _count(hosts: Sequence[Host]) -> str:
    return "1 host" if len(hosts) == 1 else f"{len(hosts)} hosts"


def _entries(place: Site, source: Path, hosts: Sequence[Host]) -> Iterator[Entry]:
    prepare = partial(place.fresh, source, 0)
    count = _count(hosts)
    daemons = [host.pool.host._daemon() for host in hosts]
    yield Entry(
        f"rasweb, {count}", partial(_engine, place, source, hosts), ENGINE, prepare, True, daemons=daemons
    )
    for name, proof in (
        (f"virsh vol-upload --sparse, {count}", ""),
        (f"virsh up, down, cmp, {count}", _PROOF),
    ):
        yield Entry(
            name,
            partial(_virsh, place, source, hosts, _UPLOAD + proof),
            prepare=prepare,
            proven=bool(proof),
            slow=bool(proof),
            daemons=daemons,
        )


def _engine(place: Site, source: Path, hosts: Sequence[Host]) -> Found:
    lanes = [place.lane(source, host.pool.pool, Address("libvirt", {**host.settings})) for host in hosts]
    found = place.distribute(place.job(source, lanes))
    for host in hosts:
        _flush_all(host.pool)
    return found


def _alone(place: Site, source: Path, hosts: Sequence[Host]) -> Entry:
    daemons = [host.pool.host._daemon() for host in hosts]
    work = partial(_daemon, place.data(source), hosts)
    return Entry(f"the daemon alone, {_count(hosts)}", work, LIMIT, daemons=daemons)


def _daemon(data: int, hosts: Sequence[Host]) -> Found:
    """See ``daemon``. The start of its process does not count."""
    pools = [word for host in hosts for word in (host.uri, host.pool.pool)]
    command = [sys.executable, "-m", "tests.benchmarks.daemon", str(data), *pools]
    done = subprocess.run(
        command, env={**os.environ, **KEPT_MEMORY}, check=True, stdout=subprocess.PIPE, text=True
    )
    begun = time.perf_counter()
    for host in hosts:
        _flush_all(host.pool)
    return Found(wall=float(done.stdout) + time.perf_counter() - begun)


def _virsh(place: Site, source: Path, hosts: Sequence[Host], line: str) -> Found:
    size = str(source.stat().st_size)
    commands = [
        [
            "sh",
            "-c",
            line,
            "sh",
            host.uri,
            host.pool.pool,
            str(source),
            size,
            str(place.folder / f"t{number}"),
        ]
        for number, host in enumerate(hosts)
    ]
    memory = run_together(commands)
    for host in hosts:
        _flush_all(host.pool)
    return Found(memory)


def _flush_all(pool: LibvirtBench) -> None:
    """libvirt does not have what it takes in written to its disks: here that counts for all alike."""
    for path in pool.folder.glob("*.raw"):
        flush(path)


def _clear(place: Site, pools: Sequence[LibvirtBench]) -> None:
    for path in place.folder.glob("t[0-9]"):
        os.unlink(path)
    place.clear()
    for pool in pools:
        for path in pool.folder.iterdir():
            if path.name != ".rasweb-host.json":
                path.unlink()
        pool.libvirt.storagePoolLookupByName(pool.pool).refresh(0)
