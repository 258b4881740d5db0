"""Published images and what is staged for them. Volumes can not be renamed, so nothing here relies on a rename.

The bytes of an image go to a volume ``V`` of their own, whose name carries a token. The note ``.V.part.json`` is there
before it and says whose it is. Its first 64 KiB - boot sector, partition table, header - are kept in ``.V.head`` until
all the rest is there and proven: before that, no other tool finds a disk in ``V``. Publishing is the note
``.NAME.rasweb.json``, which can be made only once; what has none is not published. The note goes last on removal.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from providers_app.drivers import files
from providers_app.drivers.base import Mark
from providers_app.drivers.errors import DriverError, Missing, Refused

from . import locks, notes, storage
from .disks import changed, conflict
from .host import Host
from .notes import Note
from .storage import Pool, Volume
from .uses import Uses


def confirm(host: Host, name: str, mark: Mark, stamp: str) -> None:
    """Write the stamp of an image that was just compared into its note."""
    with _looked_at(host, name):
        note = published_as(host.pool, name)
        if note is None or not mark.owns(note.mark):
            raise _not_ours(host, name)
        if existing(host.pool, note.volume, host).facts().stamp != stamp:
            raise changed(host, name)
        if note.stamp != stamp:
            notes.rewrite(host.pool, notes.of_image(name), replace(note, stamp=stamp).encode())


def remove(host: Host, name: str, mark: Mark, *, force: bool) -> None:
    """Delete an image, its note and all that is staged for it, as far as it is ours."""
    with _looked_at(host, name):
        if files.PLACEHOLDER not in name:
            _remove_published(host, name, mark, force)
            drop_stale(host, name, mark)
        _discard(host, name, mark)


def discard(host: Host, name: str, mark: Mark) -> None:
    """Delete all that is staged for an image, as far as it is ours."""
    with _looked_at(host, name):
        _discard(host, name, mark)


@contextmanager
def _looked_at(host: Host, name: str) -> Iterator[None]:
    """Hold the host's lock over a pool that was just looked at."""
    files.check_image_name(name)
    host.pool.refresh(storage.PATIENCE_SECONDS)
    with host.lock():
        host.check_present()
        if not host.pool.refresh():
            raise busy(host, name)
        yield


def _remove_published(host: Host, name: str, mark: Mark, force: bool) -> None:
    note = published_as(host.pool, name)
    if note is None or host.pool.volume(note.volume) is None:
        if host.pool.volume(name) is not None:
            raise _not_ours(host, name)
        return
    if note.mark != mark:
        raise _not_ours(host, name)
    volume = existing(host.pool, note.volume, host)
    try:
        facts = volume.facts()
    except Missing:
        return
    if facts.stamp != note.stamp and not force:
        raise changed(host, name)
    uses = Uses.on(host)
    if standing := uses.of(facts.path):
        raise Refused(
            f"The image {name} is still the base of: {', '.join(standing[:5])}{' …' if len(standing) > 5 else ''}.",
            code="IN_USE",
            action="Delete or recreate these VMs first.",
        )
    if uses.busy:
        raise busy(host, name, uses.busy[0])
    for user, path in uses.hidden:
        raise Refused(
            f"The file {files.shown(path)}, used by {files.shown(user)}, lies in no storage pool: it may stand on the "
            f"image {name}, and no host says whether it does.",
            code="IN_USE",
            action="Make its folder a storage pool of the host and start that, or delete what uses it; then retry.",
        )
    volume.delete()


def _discard(host: Host, name: str, mark: Mark) -> None:
    for note in list(parts(host.pool)):
        if files.resolves(note.name, name) and mark.owns(note.mark):
            _drop_part(host, note, name)
    sweep(host, mark)


def _drop_part(host: Host, note: Note, name: str) -> None:
    held = locks.take(host.id, note.token)
    if held is None:
        raise Refused(
            f"The image {name} is being copied by another process.",
            code="IN_USE",
            action="Wait until it has ended, then retry.",
        )
    try:
        if not drop(host.pool, note):
            raise busy(host, name)
    finally:
        held.close()


def published(pool: Pool) -> Iterator[Note]:
    """Yield the notes of all published images whose volume is there."""
    volumes = pool.volumes()
    for name, volume in notes.published(volumes):
        note = notes.read(pool, volume)
        if note is not None and note.name == name and note.volume in volumes:
            yield note


def published_as(pool: Pool, name: str) -> Note | None:
    volume = pool.volume(notes.of_image(name))
    return notes.read(pool, volume) if volume else None


def parts(pool: Pool) -> Iterator[Note]:
    """Yield the notes of all that is being filled and was not published."""
    volumes = pool.volumes()
    out = {note.volume for note in published(pool)}
    for name, volume in notes.parts(volumes):
        note = notes.read(pool, volume)
        if note is not None and note.volume == name and name not in out:
            yield note


def check_free(host: Host, name: str, mark: Mark) -> Note | None:
    """Return the note of an image of that name and mark, None where the name is free.

    PATH_CONFLICT for anything else of that name, CONTENT_CHANGED for what is not as it was published.
    """
    beside = host.pool.volume(notes.of_image(name))
    note = notes.read(host.pool, beside) if beside else None
    volume = host.pool.volume(note.volume) if note else None
    if note is None or volume is None:
        if beside is not None and note is None and not notes.unfinished(host.pool, beside):
            raise conflict(host, beside.name)
        if host.pool.volume(name) is not None:
            raise conflict(host, name)
        return None
    if note.mark != mark:
        raise conflict(host, name)
    try:
        if volume.facts().stamp != note.stamp:
            raise changed(host, name)
    except Missing:
        return None
    return note


def sweep(host: Host, mark: Mark) -> None:
    """Remove our notes of volumes that are gone or published, and what lies beside those.

    Only a note tells that it is ours. One that was never filled names nothing: its volume was not begun. Under the lock
    none is in the making.
    """
    volumes = host.pool.volumes()
    out = {note.volume for note in published(host.pool)}
    for name, volume in notes.parts(volumes):
        if name in volumes and name not in out:
            continue
        note = notes.read(host.pool, volume)
        if note is None:
            if notes.unfinished(host.pool, volume):
                volume.delete()
        elif note.volume == name and note.mark.installation == mark.installation:
            forget(host.pool, name)


def drop_stale(host: Host, name: str, mark: Mark) -> bool:
    """Remove the note of an image that is gone or never came to be; False when it is somebody else's.

    One of another template goes too: that one may be deleted, and its image was deleted by hand.
    """
    volume = host.pool.volume(notes.of_image(name))
    if volume is None:
        return True
    note = notes.read(host.pool, volume)
    if note is None:
        stale = notes.unfinished(host.pool, volume)
    else:
        ours = note.mark.installation == mark.installation
        stale = ours and host.pool.volume(note.volume) is None
    if stale:
        volume.delete()
    return stale


def drop(pool: Pool, note: Note) -> bool:
    """Delete a volume that is being filled and all beside it; False, and nothing is, while the host fills it."""
    try:
        if (volume := pool.volume(note.volume)) is not None:
            volume.delete()
    except Refused as refused:
        if refused.code != "IN_USE":
            raise
        return False
    forget(pool, note.volume)
    return True


def forget(pool: Pool, name: str) -> None:
    """Delete what was kept beside a volume while it was filled, its note last."""
    for beside in (notes.of_head(name), notes.of_mask(name), notes.of_part(name)):
        if (volume := pool.volume(beside)) is not None:
            volume.delete()


def existing(pool: Pool, name: str, host: Host) -> Volume:
    volume = pool.volume(name)
    if volume is None:
        raise Missing(f"The volume {name} is gone from {host.where}.", action="Retry.")
    return volume


def busy(host: Host, name: str, pool: str = "") -> DriverError:
    """Nobody sees what stands on an image while a pool can not be looked at."""
    return DriverError(
        f"The host {host.where} is copying in its storage pool {files.shown(pool or host.pool.name)}: "
        f"{name} has to wait.",
        code="BUSY",
        action="It is tried again by itself.",
    )


def _not_ours(host: Host, name: str) -> Refused:
    return Refused(
        f"The image {name} on the host {host.where} was not made by this template; it was left alone.",
        code="NOT_OURS",
        action="Look at the volume; move it away by hand if it is not needed.",
    )
