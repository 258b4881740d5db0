"""What a host holds, read in one go. Changes nothing; what others wrote becomes a VM's problem, never a crash."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from providers_app.drivers import files
from providers_app.drivers.base import Can, Image, Survey

from . import definition, domains, fit, images, networks, notes
from .domains import Domain
from .host import Host
from .notes import Note
from .storage import Facts

ABILITIES = frozenset({Can.FULL_CLONE, Can.LINKED_CLONE, Can.POWER})


def survey(host: Host) -> Survey:
    """Read all of a host."""
    host.check_usable()
    host.pool.refresh()
    volumes = host.pool.volumes()
    facts = domains.facts_by_path(volumes)
    found = list(domains.every(host))
    free, total = host.pool.space()
    published, parts = list(images.published(host.pool)), list(images.parts(host.pool))
    if host.network:
        networks.check(host, "")
    return Survey(
        host.id,
        can=ABILITIES,
        vms=tuple(domains.described(host, (each for each in found if not each.is_ours("guest")), facts)),
        guests=tuple(domains.described(host, (each for each in found if each.is_ours("guest")), facts)),
        images=tuple(_images(published, facts, _in_use(host, found, parts))),
        staged=tuple(_staged(parts, facts)),
        networks=None if host.network else networks.usable(host),
        free_bytes=free,
        hardware=fit.offer(host),
        total_bytes=total,
    )


def _images(published: Sequence[Note], facts: Mapping[str, Facts], known: set[str]) -> Iterator[Image]:
    """Yield what is published, and the volumes of others that belong to no VM."""
    by_name = {each.name: each for each in facts.values()}
    for note in published:
        if each := by_name.pop(note.volume, None):
            yield Image(note.volume, note.name, each.size, each.stamp, note.mark)
    for name, each in by_name.items():
        if name not in known and not name.startswith("."):
            label = files.shown(name)
            yield Image(label, label, each.size, each.stamp)


def _staged(parts: Sequence[Note], facts: Mapping[str, Facts]) -> Iterator[Image]:
    by_name = {each.name: each for each in facts.values()}
    for note in parts:
        if each := by_name.get(note.volume):
            yield Image(note.volume, note.name, each.size, each.stamp, note.mark)


def _in_use(host: Host, found: Sequence[Domain], parts: Sequence[Note]) -> set[str]:
    """Return the names of volumes that are disks of VMs, or are being made."""
    names = {drive.path.rpartition("/")[2] for domain in found for drive in definition.drives(domain.root)}
    orders = (notes.read(host.pool, volume) for _, volume in notes.orders(host.pool.volumes()))
    ordered = {name for order in orders if order for name in (*order.volumes, *order.old)}
    return names | ordered | {note.volume for note in parts}
