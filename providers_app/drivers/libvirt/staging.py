"""An image on its way into a pool: begun or taken up again, written, proven and published."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager

from providers_app.drivers import files
from providers_app.drivers.base import Image, Mark, Sink
from providers_app.drivers.errors import DriverError, Missing, Unreachable

from . import copies, disks, downloads, images, locks, notes, uploads
from .disks import Blank, conflict
from .downloads import Downloads
from .errors import no_space
from .host import Host
from .locks import Lock
from .notes import Note
from .storage import Pool
from .uploads import Uploads

HEAD = 64 << 10


def stage(host: Host, name: str, size: int, mark: Mark) -> LibvirtSink:
    """Begin an image, or take up what an earlier attempt left and nobody holds."""
    files.check_image_name(name)
    with host.lock():
        host.check_present()
        host.pool.refresh()
        if files.PLACEHOLDER not in name:
            images.check_free(host, name, mark)
        images.sweep(host, mark)
        note, held = _resume(host, name, size, mark) or (None, None)
        fresh = note is None or held is None
        if note is None or held is None:
            note, held = _begin(host, name, size, mark)
    return LibvirtSink(host, note, held, fresh=fresh)


class LibvirtSink(Sink):
    """An image on its way into a pool."""

    sequential = True  # all threads of a host share the one event loop of its daemon

    def __init__(self, host: Host, note: Note, held: Lock, *, fresh: bool) -> None:
        self.token = note.token
        self.size = note.size
        self._host, self._note, self._held = host, note, held
        self._apart: Pool | None = None
        self._apart_lock = threading.Lock()
        self._blank = Blank(known=fresh)
        self._open_volume()
        self._head = bytearray(min(HEAD, note.size))
        self._head_lock = threading.Lock()
        self._head_unsaved = False
        self._open = True
        if not fresh and (now := self._volume.facts().size) < self.size:
            files.do(uploads.lengthen, host.connection, self._volume, now, self.size)
        if not fresh and (kept := host.pool.volume(notes.of_head(note.volume))):
            downloads.get(host.connection, kept, 0, memoryview(self._head))

    def _open_volume(self) -> None:
        self._volume = images.existing(self._host.pool, self._note.volume, self._host)
        self._downloads = Downloads(self._host.connection, self._volume)
        self._uploads: Uploads | None = None

    def write(self, offset: int, data: memoryview) -> None:
        self._check(offset, len(data))
        inside = max(0, min(len(data), len(self._head) - offset))
        if inside:
            with self._head_lock:
                self._head[offset : offset + inside] = data[:inside]
                self._head_unsaved = True
        if inside < len(data):
            self._blank.wrote(offset + inside, len(data) - inside)
            self._send(offset + inside, data[inside:])

    def copy_from(self, ref: str, beat: Callable[[int], None]) -> bool:
        """Fill it by the host itself, of which nobody sees the beginning before it is published: see ``copies``."""
        origin = None if ref.startswith(".") else self._host.pool.volume(ref)
        if origin is None or not self._blank.untouched() or self._head_unsaved:
            return False
        self._blank = Blank(known=False)
        if not copies.fill(self._host, self._volume, self.size, origin, beat):
            self._blank = Blank(known=True)
            return False
        self._open_volume()
        with self._head_lock, closing(disks.open_disk(self._host, origin)) as source:
            source.read_into(0, memoryview(self._head))
            self._save_head()
        return True

    def hole(self, offset: int, length: int) -> None:
        self._check(offset, length)
        inside = max(0, min(length, len(self._head) - offset))
        if inside:
            with self._head_lock:
                self._head[offset : offset + inside] = bytes(inside)
                self._head_unsaved = True
        if inside < length:
            self._clear(offset + inside, length - inside)

    def _clear(self, offset: int, length: int) -> None:
        written = self._blank.within(offset, length)
        if written is None:
            written = list(downloads.data_runs(self._host.connection, self._volume, offset, offset + length))
        zeros = memoryview(bytes(uploads.SEND))
        for start, run in written:
            for at in range(start, start + run, len(zeros)):
                self._send(at, zeros[: start + run - at])

    def _send(self, offset: int, data: memoryview) -> None:
        with self._explaining():
            files.do(self._sending().write, offset, data)

    def _sending(self) -> Uploads:
        """What sends, by a connection of its own: in a common one all else waits behind the megabytes of it."""
        with self._apart_lock:
            if self._uploads is None:
                self._apart = self._apart or self._host.pool_apart()
                volume = images.existing(self._apart, self._note.volume, self._host)
                volume.opening = self._volume.opening
                blank = self.size if self._blank.known else None
                self._uploads = Uploads(
                    self._apart.connection,
                    volume,
                    blank=blank,
                    aside=self._volume,
                    check_room=self._check_room,
                )
            return self._uploads

    @contextmanager
    def _explaining(self) -> Iterator[None]:
        """A host that runs out of room closes the connection when there are holes on their way, and says no word."""
        try:
            yield
        except Unreachable:
            self._check_room()
            raise

    def _check_room(self) -> None:
        if self._host.pool.refresh() and self._host.pool.space()[0] < uploads.SEND:
            raise no_space(f"the volume {self._note.volume}", self._host.where)

    def flush(self) -> None:
        """Return when the host has taken everything. It offers no way to have it written to its disks."""
        if self._uploads is not None:
            with self._explaining():
                self._uploads.finish()
        with self._head_lock:
            if self._head_unsaved:
                self._save_head()
                self._head_unsaved = False
        self._host.check_present()

    def _save_head(self) -> None:
        name = notes.of_head(self._note.volume)
        kept = self._host.pool.volume(name) or self._host.pool.create(name, len(self._head))
        files.do(uploads.put, self._host.connection, kept, 0, bytes(self._head))

    def expect(self, offset: int, length: int) -> None:
        inside = max(0, min(length, len(self._head) - offset))
        if inside < length:
            self._downloads.expect(offset + inside, length - inside)

    def read_into(self, offset: int, buffer: memoryview) -> int:
        wanted = max(0, min(len(buffer), self.size - offset))
        inside = max(0, min(wanted, len(self._head) - offset))
        if inside:
            self._read_head(offset, buffer[:inside])
        if inside < wanted:
            return inside + self._downloads.read(offset + inside, buffer[inside:wanted])
        return inside

    def _read_head(self, offset: int, view: memoryview) -> None:
        """From the host where it was saved there; what is not saved yet is nowhere else."""
        with self._head_lock:
            kept = None if self._head_unsaved else self._host.pool.volume(notes.of_head(self._note.volume))
            if kept is None:
                view[:] = self._head[offset : offset + len(view)]
            else:
                downloads.get(self._host.connection, kept, offset, view)

    def commit(self, name: str, mark: Mark) -> Image:
        if not files.resolves(self._note.name, name):
            raise ValueError(f"{name} was not staged as {self._note.name}")
        files.check_name(name)
        self.flush()
        self._complete()
        with self._host.lock():
            self._host.pool.refresh()
            found = images.check_free(self._host, name, mark)
            if found is None:
                found = self._publish(name, mark)
            elif found.volume != self._note.volume:
                self._volume.delete()
            images.forget(self._host.pool, self._note.volume)
        self.close()
        return _image(found)

    def _complete(self) -> None:
        """Put the beginning of the image where it belongs, and prove it."""
        files.do(uploads.put, self._host.connection, self._volume, 0, bytes(self._head))
        there = memoryview(bytearray(len(self._head)))
        downloads.get(self._host.connection, self._volume, 0, there)
        if bytes(there) != self._head or self._volume.facts().size != self.size:
            raise DriverError(
                "What the host holds is not what was sent.", code="CHECKSUM_MISMATCH", action="Retry."
            )

    def _publish(self, name: str, mark: Mark) -> Note:
        if not images.drop_stale(self._host, name, mark):
            raise conflict(self._host, name)
        stamp = self._volume.facts().stamp
        note = Note(mark, name, self._note.volume, self.size, stamp, self.token)
        notes.write(self._host.pool, notes.of_image(name), note.encode())
        return note

    def abort(self) -> None:
        if self._open:
            self._give_up()
            try:
                with self._host.lock():
                    if not images.drop(self._host.pool, self._note):
                        raise images.busy(self._host, self._note.name)
            finally:
                self.close()

    def close(self) -> None:
        if self._open:
            self._open = False
            self._give_up()
            self._held.close()

    def _give_up(self) -> None:
        self._downloads.close()
        if self._uploads is None or self._apart is None:
            return
        self._uploads.close()
        if not self._uploads.silenced:
            self._apart.close()
            return
        # Whoever lets go of it last waits until the library takes it for lost: not this thread.
        closing = threading.Thread(target=_close, args=(self._apart, self._uploads), daemon=True)
        self._uploads = self._apart = None
        closing.start()

    def _check(self, offset: int, length: int) -> None:
        if offset < 0 or length < 0 or offset + length > self.size:
            raise ValueError(f"{length} bytes at {offset} lie outside the image of {self.size}")


def _close(apart: Pool, uploads: Uploads) -> None:
    uploads.close()
    apart.close()


def _resume(host: Host, name: str, size: int, mark: Mark) -> tuple[Note, Lock] | None:
    """Return a partial image that is ours, fits and is not held; remove our other ones."""
    chosen: tuple[Note, Lock] | None = None
    for note in list(images.parts(host.pool)):
        if note.name != name or not mark.owns(note.mark) or not (held := locks.take(host.id, note.token)):
            continue
        if chosen is None and (note.mark, note.size) == (mark, size) and _whole(host.pool, note):
            chosen = note, held
        else:
            images.drop(host.pool, note)
            held.close()
    return chosen


def _whole(pool: Pool, note: Note) -> bool:
    volume = pool.volume(note.volume)
    try:
        fits = volume is not None and volume.facts().size <= note.size
        return fits and not copies.unfinished(pool, note.volume)
    except Missing:
        return False


def _begin(host: Host, name: str, size: int, mark: Mark) -> tuple[Note, Lock]:
    token = files.token()
    held = locks.take(host.id, token)
    if held is None:
        raise RuntimeError("a token was drawn twice")
    volume = _volume_name(name, token)
    note = Note(mark, name, volume, size, token=token)
    try:
        notes.write(host.pool, notes.of_part(volume), note.encode())
        host.pool.create(volume, size)
    except BaseException:
        images.drop(host.pool, note)
        held.close()
        raise
    return note, held


def _volume_name(name: str, token: str) -> str:
    """Name the volume of an image: what an administrator recognises, and a token that makes it the only one."""
    stem, dot, suffix = name.rpartition(".")
    stem = (stem or suffix).replace(files.PLACEHOLDER, "").rstrip("-. ")
    return f"{stem}.{token[:12]}{dot}{suffix if dot else ''}"


def _image(note: Note) -> Image:
    return Image(note.volume, note.name, note.size, note.stamp, note.mark)
