"""Published and staged images of the simulator: records of the index and one file each."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import replace

from providers_app.drivers import files
from providers_app.drivers.base import Mark
from providers_app.drivers.errors import Refused
from providers_app.drivers.simulator.index import Held, Index, Store
from providers_app.drivers.simulator.machines import changed, users


def stage(store: Store, name: str, size: int, mark: Mark) -> tuple[Held, int]:
    """Begin an image, or take up what an earlier attempt left and nobody holds; return its record and open file."""
    with ExitStack() as opened:
        with store.change() as index:
            taken(store, index, name, mark)
            held, fd = _resume(store, index, name, size, mark) or _begin(store, index, name, size, mark)
            opened.callback(os.close, fd)
        opened.pop_all()
        return held, fd


def taken(store: Store, index: Index, name: str, mark: Mark) -> Held | None:
    """Return the image of that name and mark, None where the name is free.

    PATH_CONFLICT for another mark, CONTENT_CHANGED for one that is not as it was published.
    """
    held = _named(index.images, name)
    if held is None:
        return None
    if held.mark != mark:
        raise Refused(
            f"On the simulator the name {name} is taken by an image that is not this template's.",
            code="PATH_CONFLICT",
            action="Move the other image away, then retry.",
        )
    if not _as_published(store, held):
        raise changed(held)
    return held


def confirm(store: Store, name: str, mark: Mark, stamp: str) -> None:
    """Keep the stamp of an image that was just compared."""
    with store.change() as index:
        held = _named(index.images, name)
        if held is None or not mark.owns(held.mark):
            raise _not_ours(name)
        if store.stamp(held.id) != stamp:
            raise changed(held)
        index.images = tuple(
            replace(other, stamp=stamp) if other is held else other for other in index.images
        )


def remove(store: Store, name: str, mark: Mark, *, force: bool) -> None:
    """Delete a published image and all that is staged for it, as far as it is ours."""
    with store.change() as index:
        if (held := _named(index.images, name)) is not None:
            _check_removable(store, index, held, mark, force)
            drop(store, index, held)
        _discard(store, index, name, mark)


def discard(store: Store, name: str, mark: Mark) -> None:
    """Delete all that is staged for an image, as far as it is ours."""
    with store.change() as index:
        _discard(store, index, name, mark)


def drop(store: Store, index: Index, held: Held) -> None:
    """Delete an image, its file first: room for a new index may be what is missing."""
    store.blobs.unlink(held.id)
    index.images = tuple(other for other in index.images if other is not held)
    index.staged = tuple(other for other in index.staged if other is not held)


def _check_removable(store: Store, index: Index, held: Held, mark: Mark, force: bool) -> None:
    if held.mark != mark:
        raise _not_ours(held.name)
    if store.blobs.stat(held.id) and not force and not _as_published(store, held):
        raise changed(held)
    if standing := users(index, held.id):
        raise Refused(
            f"The image {held.name} is still the base of: {', '.join(standing[:5])}.",
            code="IN_USE",
            action="Delete or recreate these VMs first.",
        )


def _discard(store: Store, index: Index, name: str, mark: Mark) -> None:
    for staged in index.staged:
        if files.resolves(staged.name, name) and mark.owns(staged.mark):
            _let_go(store, staged)
            drop(store, index, staged)


def _let_go(store: Store, staged: Held) -> None:
    fd = store.take(staged.id)
    if fd is None:
        raise Refused(
            f"The image {staged.name} is being copied by another process.",
            code="IN_USE",
            action="Wait until it has ended, then retry.",
        )
    if fd >= 0:
        os.close(fd)


def _resume(store: Store, index: Index, name: str, size: int, mark: Mark) -> tuple[Held, int] | None:
    chosen = None
    for held in reversed(index.staged):
        if held.name != name or not mark.owns(held.mark) or (fd := store.take(held.id)) is None:
            continue
        if (
            chosen is None
            and fd >= 0
            and (held.mark, held.size) == (mark, size) == (mark, os.fstat(fd).st_size)
        ):
            chosen = held, fd
            continue
        drop(store, index, held)
        if fd >= 0:
            os.close(fd)
    return chosen


def _begin(store: Store, index: Index, name: str, size: int, mark: Mark) -> tuple[Held, int]:
    held = Held(files.token(), name, size, mark)
    index.staged += (held,)
    store.save(index)
    fd = store.new_blob(held.id)
    try:
        files.do(os.ftruncate, fd, size)
    except OSError:
        os.close(fd)
        raise
    return held, fd


def _named(images: Iterable[Held], name: str) -> Held | None:
    return next((image for image in images if image.name == name), None)


def _as_published(store: Store, held: Held) -> bool:
    found = store.blobs.stat(held.id)
    return found is not None and files.stamp_of(found) == held.stamp


def _not_ours(name: str) -> Refused:
    return Refused(
        f"The image {name} on the simulator was not made by this template; it was left alone.",
        code="NOT_OURS",
        action="Look at the image; remove it by hand if it is not needed.",
    )
