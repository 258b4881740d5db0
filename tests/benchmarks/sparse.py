"""Many small images; an image of nothing but holes; memory and time beside the size of the image."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from .measure import Found, flush, forget, run_together
from .peers import CP, NBDCOPY, QEMU_IMG, TAR, Peer, available, present
from .rounds import ENGINE, Case, Entry
from .site import Site, half_full, site, thinned

SMALL, COUNT, ABREAST = 16 << 20, 64, 4
HUGE = 100 << 30


@contextmanager
def small(folder: Path, size: int, share: float, *, count: int = COUNT) -> Iterator[Case]:
    with site(folder, "small") as place:
        each = min(SMALL, size)
        sources = [place.image(f"s{number}", half_full(each), each) for number in range(count)]
        place.seal(*sources)

        def prepare() -> None:
            place.fresh(sources[0], 1)
            for source in sources:
                forget(source)

        def engines() -> Found:
            """One process for each image, as each is a template of its own."""
            with ThreadPoolExecutor(ABREAST) as pool:
                found = list(pool.map(lambda source: place.to(source, 1), sources))
            memory = sorted(one.memory for one in found)[-ABREAST:]
            return Found(sum(memory), sent=sum(one.sent for one in found))

        def copies(*command: str) -> Found:
            """One process for all, in a row."""
            target = place.folder / "t0" / "copies"
            target.mkdir()
            memory = run_together([[*command, str(place.folder / "source" / "vms"), str(target)]])
            for path in target.glob("**/*.raw"):
                flush(path)
            return Found(memory)

        entries = [Entry("rasweb", engines, ENGINE, prepare, proven=True)]
        entries.append(Entry("cp -r", partial(copies, "cp", "-r"), prepare=prepare))
        if available("rsync"):
            entries.append(Entry("rsync -r", partial(copies, "rsync", "-rI", "--sparse"), prepare=prepare))
        about = (
            f"{count} images of {each >> 20} MiB, half holes, to 1 host; rasweb with an engine of its own for each, "
            f"{ABREAST} at a time."
        )
        yield Case("small", about, share, entries, place.clear)


@contextmanager
def holes(folder: Path, size: int, share: float) -> Iterator[Case]:
    with site(folder, "holes") as place:
        source = place.image("holes", iter(()), HUGE)
        place.seal(source)
        entries = _against(place, source, [CP, QEMU_IMG, NBDCOPY, TAR])
        about = "An image of 100 GiB that is one hole, to 1 host. bmaptool and rsync would read all of it."
        yield Case("holes", about, share, entries, place.clear)


@contextmanager
def virtual(folder: Path, size: int, share: float, *, times: int) -> Iterator[Case]:
    """The same data in an image that is so many times as large."""
    with site(folder, f"memory{times}") as place:
        source = place.image("thin", thinned(size * times, size // 2), size * times)
        place.seal(source)
        about = f"An image of {size * times >> 20} MiB with {size >> 21} MiB of data in pieces of 256 KiB, to 1 host."
        yield Case(
            f"{times}-fold size", about, share, _against(place, source, [NBDCOPY, QEMU_IMG, CP]), place.clear
        )


def _against(place: Site, source: Path, peers: list[Peer]) -> list[Entry]:
    prepare = partial(place.fresh, source, 1)
    target = place.folder / "t0" / "copy.raw"
    return [
        Entry("rasweb", partial(place.to, source, 1), ENGINE, prepare, proven=True),
        *(Entry(peer.name, partial(peer.copy, source, [target]), prepare=prepare) for peer in present(peers)),
    ]
