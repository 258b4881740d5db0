"""Run by a test inside a mount of its own: a host on a disk of two MiB."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path

from providers_app.drivers import CloneSpec, Definition, NoSpace
from tests.drivers.benches import BENCHES, GUEST, IMAGE, MIB, NAME, known_bytes
from tests.drivers.copying import aligned, publish


def main(kind: str, root: Path) -> None:
    """Fill the disk by a copy and by clones; leave only what fits."""
    bench = BENCHES[kind](root)
    host = bench.connected()
    sink = host.stage(NAME, 8 * MIB, IMAGE)
    assert faces_a_full_disk(lambda: sink.write(0, aligned(os.urandom(4 * MIB))))
    sink.abort()
    assert host.survey().free_bytes > MIB
    noise, runs = known_bytes(1, 700_000, [(0, 700_000)]), [(0, 700_000)]
    image = publish(host, noise, NAME, IMAGE, runs)
    spec = CloneSpec("desk 1", (image.ref,), ("raw",), False, Definition(), GUEST)
    guest = host.clone(spec)
    assert faces_a_full_disk(lambda: host.clone(replace(spec, name="desk 2")))
    assert faces_a_full_disk(lambda: host.recreate(spec))
    assert host.survey().guests == (guest,)
    assert bench.path(guest.disks[0].ref).read_bytes()[: len(noise)] == noise
    assert bench.litter() == []
    bench.close()


def faces_a_full_disk(act: object) -> bool:
    assert callable(act)
    try:
        act()
    except NoSpace as error:
        return error.code == "NO_SPACE" and bool(error.action)
    return False


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
