"""Published images and what is staged for them.

An image is the file ``images/NAME`` and the side file ``images/.NAME.rasweb.json`` that says whose it is. While it is
copied it is ``images/.NAME.TOKEN.part`` with a side file of its own. The side file always comes first and goes last,
so that whatever a crash leaves behind can be told from what others put there.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace

from providers_app.drivers import files
from providers_app.drivers.base import Image, Mark
from providers_app.drivers.blocks import FileSink
from providers_app.drivers.errors import Refused

from . import notes
from .errors import errors
from .layout import Host
from .listing import users
from .notes import Note, Part


def stage(host: Host, name: str, size: int, mark: Mark) -> DirectorySink:
    """Begin an image, or take up what an earlier attempt left and nobody holds."""
    files.check_image_name(name)
    with errors(f"the image {name}", host.path), host.lock():
        if files.PLACEHOLDER not in name:
            _check_free(host, name, mark)
        _sweep(host, mark)
        part, fd = _resume(host, name, size, mark) or _begin(host, name, size, mark)
    return DirectorySink(host, part, fd)


class DirectorySink(FileSink):
    """An image being copied into a directory host."""

    def __init__(self, host: Host, part: Part, fd: int) -> None:
        self._host = host
        self._part = part
        self._open = True
        super().__init__(fd, part.token, _about(host, f"the image {part.name}"))

    def copy_from(self, ref: str, beat: Callable[[int], None]) -> bool:
        with self._errors():
            try:
                folder = self._host.folder_of(ref)
            except FileNotFoundError:
                return False
        with folder:
            return self.fill_from(folder, ref.rpartition("/")[2], beat)

    def flush(self) -> None:
        super().flush()
        self._host.root.check_present()

    def commit(self, name: str, mark: Mark) -> Image:
        if not files.resolves(self._part.name, name):
            raise ValueError(f"{name} was not staged as {self._part.name}")
        files.check_name(name)
        with self._errors():
            files.do(os.fsync, self._file.fd)
            with self._host.lock():
                image = _published(self._host, name, mark) or self._publish(name, mark)
                self._discard()
        self.close()
        return image

    def abort(self) -> None:
        if self._open:
            with self._errors(), self._host.lock():
                self._discard()
        self.close()

    def close(self) -> None:
        self._open = False
        super().close()

    def _publish(self, name: str, mark: Mark) -> Image:
        images, aside = self._host.images, notes.of_image(name)
        note = Note(mark, self.size, files.stamp_of(os.fstat(self._file.fd)))
        if not _drop_intent(self._host, name, mark):
            raise conflict(self._host, name)
        images.create(aside, note.encode())
        images.sync()
        try:
            images.rename(self._part.file, name)
        except FileExistsError:
            images.unlink(aside)
            raise
        images.sync()
        return Image(f"images/{name}", name, self.size, note.stamp, mark)

    def _discard(self) -> None:
        self._host.images.unlink(self._part.file)
        self._host.images.unlink(self._part.note)
        self._host.images.sync()


def confirm(host: Host, name: str, mark: Mark, stamp: str) -> None:
    """Write the stamp of an image that was just compared into its side file."""
    files.check_image_name(name)
    with errors(f"the image {name}", host.path), host.lock():
        found, note = host.images.stat(name), notes.read(host.images, notes.of_image(name))
        if found is None or note is None or not mark.owns(note.mark):
            raise _not_ours(host, name)
        if files.stamp_of(found) != stamp:
            raise changed(host, name)
        if note.stamp != stamp:
            host.images.replace(notes.of_image(name), replace(note, stamp=stamp).encode())


def remove(host: Host, name: str, mark: Mark, *, force: bool) -> None:
    """Delete an image, its side file and all that is staged for it, as far as it is ours."""
    files.check_image_name(name)
    with errors(f"the image {name}", host.path), host.lock():
        if files.PLACEHOLDER not in name:
            _remove_published(host, name, mark, force)
            _drop_intent(host, name, mark)
        _discard(host, name, mark)


def discard(host: Host, name: str, mark: Mark) -> None:
    """Delete all that is staged for an image, as far as it is ours."""
    files.check_image_name(name)
    with errors(f"the image {name}", host.path), host.lock():
        _discard(host, name, mark)


def _remove_published(host: Host, name: str, mark: Mark, force: bool) -> None:
    found = host.images.stat(name)
    if found is None:
        return
    note = notes.read(host.images, notes.of_image(name))
    if note is None or note.mark != mark:
        raise _not_ours(host, name)
    if note.stamp != files.stamp_of(found) and not force:
        raise changed(host, name)
    if standing := users(host, name):
        raise Refused(
            f"The image {name} is still the base of: {', '.join(standing[:5])}{' …' if len(standing) > 5 else ''}.",
            code="IN_USE",
            action="Delete or recreate these VMs first.",
        )
    host.images.unlink(name)


def _discard(host: Host, name: str, mark: Mark) -> None:
    for part in _parts_for(host, name):
        note = notes.read(host.images, part.note)
        if note is None or not mark.owns(note.mark):
            continue
        if (fd := _take(host, part)) is None:
            raise Refused(
                f"The image {name} is being copied by another process.",
                code="IN_USE",
                action="Wait until it has ended, then retry.",
            )
        _drop(host, part, fd)
    _sweep(host, mark)
    host.images.sync()


def _published(host: Host, name: str, mark: Mark) -> Image | None:
    """Return the image that an earlier attempt published already; PATH_CONFLICT for anything else of that name."""
    note = _check_free(host, name, mark)
    return Image(f"images/{name}", name, note.size, note.stamp, mark) if note else None


def _check_free(host: Host, name: str, mark: Mark) -> Note | None:
    found = host.images.stat(name)
    if found is None:
        return None
    note = notes.read(host.images, notes.of_image(name))
    if note is None or note.mark != mark:
        raise conflict(host, name)
    if note.stamp != files.stamp_of(found):
        raise changed(host, name)
    return note


def _drop_intent(host: Host, name: str, mark: Mark) -> bool:
    """Remove the side file of an image that never came to be, or is gone; False when it is somebody else's.

    One of another template goes too: that one may be deleted, and its image was deleted by hand.
    """
    aside = notes.of_image(name)
    found, note = host.images.stat(aside), notes.read(host.images, aside)
    ours = note is not None and note.mark.installation == mark.installation
    if found and found.st_size and not (ours and host.images.stat(name) is None):
        return False
    host.images.unlink(aside)
    return True


def _resume(host: Host, name: str, size: int, mark: Mark) -> tuple[Part, int] | None:
    """Return the newest partial image that is ours, fits and is not held; remove our other ones."""
    chosen = None
    for part in _newest_first(host, name):
        note = notes.read(host.images, part.note)
        if note is None or not mark.owns(note.mark) or (fd := _take(host, part)) is None:
            continue
        if chosen is None and fd >= 0 and (note.mark, note.size) == (mark, size) and _whole(fd, size):
            chosen = part, fd
        else:
            _drop(host, part, fd)
    return chosen


def _begin(host: Host, name: str, size: int, mark: Mark) -> tuple[Part, int]:
    part = Part(name, files.token())
    fd = -1
    try:
        host.images.create(part.note, Note(mark, size, token=part.token).encode())
        fd = host.images.open(part.file, os.O_RDWR | os.O_CREAT | os.O_EXCL)
        files.try_lock(fd)
        files.do(os.ftruncate, fd, size)
        host.images.sync()
    except OSError:
        _drop(host, part, fd)
        raise
    return part, fd


def _sweep(host: Host, mark: Mark) -> None:
    """Remove the side files of our partial images that are gone. Under the lock none is in the making."""
    for part in notes.parts(host.images):
        if host.images.stat(part.file) is None:
            note, found = notes.read(host.images, part.note), host.images.stat(part.note)
            if found and (not found.st_size or (note and note.mark.installation == mark.installation)):
                host.images.unlink(part.note)


def _take(host: Host, part: Part) -> int | None:
    """Open and lock a partial image: its descriptor, -1 when only the side file is left, None while it is held."""
    try:
        fd = host.images.open(part.file, os.O_RDWR)
    except FileNotFoundError:
        return -1
    if files.try_lock(fd):
        return fd
    os.close(fd)
    return None


def _drop(host: Host, part: Part, fd: int) -> None:
    try:
        host.images.unlink(part.file)
        host.images.unlink(part.note)
    finally:
        if fd >= 0:
            os.close(fd)


def _whole(fd: int, size: int) -> bool:
    """Tell whether a partial image can go on: the right length, and not published under another name too."""
    found = os.fstat(fd)
    return found.st_size == size and found.st_nlink == 1


def _parts_for(host: Host, name: str) -> list[Part]:
    return [part for part in notes.parts(host.images) if files.resolves(part.name, name)]


def _newest_first(host: Host, name: str) -> list[Part]:
    def written(part: Part) -> int:
        found = host.images.stat(part.file)
        return found.st_mtime_ns if found else 0

    mine = [part for part in notes.parts(host.images) if part.name == name]
    return sorted(mine, key=written, reverse=True)


def _about(host: Host, what: str) -> Callable[[], AbstractContextManager[None]]:
    return lambda: errors(what, host.path)


def _not_ours(host: Host, name: str) -> Refused:
    return Refused(
        f"The image {name} on the host folder {host.path} was not made by this template; it was left alone.",
        code="NOT_OURS",
        action="Look at the file; move it away by hand if it is not needed.",
    )


def conflict(host: Host, name: str) -> Refused:
    return Refused(
        f"On the host folder {host.path} the name {name} is taken by something that is not this template's.",
        code="PATH_CONFLICT",
        action="Move the other file or folder away, then retry.",
    )


def changed(host: Host, name: str) -> Refused:
    return Refused(
        f"The image {name} on the host folder {host.path} was changed since it was published.",
        code="CONTENT_CHANGED",
        action="Retry copies it again under a new name.",
    )
