"""Real libvirt hosts of a lab: one, and three at once."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

from templates_app.transfer.job import Address
from tests.lab.bench import LibvirtBench
from tests.lab.hosts import LONGEST_BASE, Lab, obstacle

from .measure import Found, flush, run_together
from .peers import CP
from .rounds import ENGINE, Case, Entry
from .site import Site, half_full, site

HOSTS = 3
_UPLOAD = (
    'virsh -q -c "$1" vol-create-as "$2" copy.raw "$4" --format raw --allocation 0 && '
    'virsh -q -c "$1" vol-upload --sparse copy.raw "$3" --pool "$2"'
)
_PROOF = ' && virsh -q -c "$1" vol-download --sparse copy.raw "$5" --pool "$2" && cmp "$3" "$5"'


@contextmanager
def libvirt_hosts(folder: Path, size: int, share: float) -> Iterator[Case]:
    if why := obstacle():
        yield Case("libvirt", "", share, [], notes=[f"Not measured: {why}."])
        return
    base = folder / "lab"
    with ExitStack() as stack:
        place = stack.enter_context(site(folder, "libvirt"))
        lab = stack.enter_context(Lab(HOSTS, base if len(str(base)) <= LONGEST_BASE else None))
        pools = [LibvirtBench(place.folder, host) for host in lab.hosts]
        for pool in pools:
            stack.callback(pool.close)
        source = place.image("half", half_full(size), size)
        place.seal(source)
        about = (
            f"An image of {size >> 20} MiB, half of it holes, to libvirt hosts on this machine, over unix sockets. "
            "Reading back asks the host, which may answer from its memory."
        )
        entries = [entry for count in (1, HOSTS) for entry in _entries(place, source, pools[:count])]
        yield Case("libvirt", about, share, entries, partial(_clear, place, pools))


def _entries(place: Site, source: Path, pools: Sequence[LibvirtBench]) -> Iterator[Entry]:
    prepare = partial(place.fresh, source, 0)
    hosts = "1 host" if len(pools) == 1 else f"{len(pools)} hosts"
    daemons = [pool.host._daemon() for pool in pools]
    copies = [pool.folder / "copy.raw" for pool in pools]
    yield Entry(
        f"rasweb, {hosts}", partial(_engine, place, source, pools), ENGINE, prepare, True, daemons=daemons
    )
    yield Entry(f"cp into the pool, {hosts}", partial(CP.copy, source, copies), prepare=prepare)
    for name, proof in (
        (f"virsh vol-upload --sparse, {hosts}", ""),
        (f"virsh up, down, cmp, {hosts}", _PROOF),
    ):
        yield Entry(
            name,
            partial(_virsh, place, source, pools, _UPLOAD + proof),
            prepare=prepare,
            proven=bool(proof),
            slow=bool(proof),
            daemons=daemons,
        )


def _engine(place: Site, source: Path, pools: Sequence[LibvirtBench]) -> Found:
    lanes = [place.lane(source, pool.pool, Address("libvirt", {**pool.settings})) for pool in pools]
    found = place.distribute(place.job(source, lanes))
    for pool in pools:
        _flush_all(pool)
    return found


def _virsh(place: Site, source: Path, pools: Sequence[LibvirtBench], line: str) -> Found:
    size = str(source.stat().st_size)
    commands = [
        [
            "sh",
            "-c",
            line,
            "sh",
            pool.host.uri,
            pool.pool,
            str(source),
            size,
            str(place.folder / f"t{number}"),
        ]
        for number, pool in enumerate(pools)
    ]
    memory = run_together(commands)
    for pool in pools:
        _flush_all(pool)
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
