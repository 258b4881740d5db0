"""One image to one host, to four, to eight; what the disk itself can do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from .peers import PEERS, direct_reads, direct_writes, map_of_digests, present
from .rounds import ENGINE, LIMIT, Case, Entry
from .site import half_full, site


@contextmanager
def fan_out(folder: Path, size: int, share: float, *, targets: int) -> Iterator[Case]:
    with site(folder, f"fanout{targets}") as place:
        source = place.image("half", half_full(size), size)
        place.seal(source)
        map_of_digests(source)
        copies = [place.folder / name / "copy.raw" for name in place.names(targets)]
        prepare = partial(place.fresh, source, targets)
        limit = partial(direct_writes, place.data(source), copies)
        hosts = "1 host" if targets == 1 else f"{targets} hosts"
        yield Case(
            hosts,
            f"An image of {size >> 20} MiB, half of it holes, to {hosts} on one disk.",
            share,
            [
                Entry("rasweb", partial(place.to, source, targets), ENGINE, prepare, proven=True),
                *(
                    Entry(
                        peer.name,
                        partial(peer.copy, source, copies),
                        prepare=prepare,
                        proven=peer.proven,
                        slow=peer.slow and targets > 1,
                    )
                    for peer in present(PEERS)
                    if targets <= 4 or not peer.slow
                ),
                Entry("direct writes", limit, LIMIT, prepare),
            ],
            place.clear,
            data=place.data(source),
        )


@contextmanager
def disk(folder: Path, size: int, share: float) -> Iterator[Case]:
    with site(folder, "disk") as place:
        data = size // 2
        source = place.image("full", iter([(0, data)]), data)
        paths = [place.folder / name / "zeros" for name in place.names(4)]
        prepare = partial(place.fresh, source, 4)
        work = {
            "1 writer": partial(direct_writes, data, paths[:1]),
            "4 writers": partial(direct_writes, data, paths),
            "1 reader": partial(direct_reads, data, [source]),
            "4 readers": partial(direct_reads, data, [source] * 4),
        }
        yield Case(
            "disk",
            f"{data >> 20} MiB each, past the page cache: what the disk itself can do.",
            share,
            [Entry(name, one, LIMIT, prepare) for name, one in work.items()],
            place.clear,
        )
