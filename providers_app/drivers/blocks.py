"""The bytes of local disk images: extents, direct input and output, holes, copies; Source and Sink over one file."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os
import struct
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager

from . import files
from .base import Extent, Sink, Source
from .errors import Missing
from .files import Folder, stamp_of
from .mounts import copies_within

ALIGNMENT = 4096
STEP = 1 << 20
_FICLONE = 0x40049409
_KEEP_SIZE, _PUNCH_HOLE = 1, 2
_CACHESTAT = 451
_BEGIN, _FINISH = 2, 7  # of sync_file_range: begin to write, or write and wait
_OFD_GETLK = 36
_QEMU_LOCKS = (100, 200)
_UNABLE = {
    errno.EOPNOTSUPP,
    errno.ENOTSUP,
    errno.ENOSYS,
    errno.EINVAL,
    errno.ENOTTY,
    errno.EXDEV,
    errno.EPERM,
}
_libc = ctypes.CDLL(None, use_errno=True)

Errors = Callable[[], AbstractContextManager[None]]


def data_runs(fd: int, size: int, begin: int = 0) -> Iterator[tuple[int, int]]:
    """Yield (offset, length) of what is allocated; one run where the file system keeps no map."""
    end = begin
    while end < size:
        try:
            start = os.lseek(fd, end, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return
            if error.errno not in _UNABLE:
                raise
            yield end, size - end
            return
        if start >= size:
            return
        end = min(os.lseek(fd, start, os.SEEK_HOLE), size)
        yield start, end - start


def extents(fd: int, size: int) -> Iterator[Extent]:
    """Cover a file from 0 to ``size`` with alternating data and holes."""
    return alternating(data_runs(fd, size), size)


def alternating(runs: Iterable[tuple[int, int]], size: int) -> Iterator[Extent]:
    """Turn (offset, length) of data, in order and never touching, into extents that cover all of ``size`` bytes."""
    at = 0
    for start, length in runs:
        if start > at:
            yield Extent(at, start - at, data=False)
        yield Extent(start, length)
        at = start + length
    if at < size:
        yield Extent(at, size - at, data=False)


def punch(fd: int, offset: int, length: int) -> None:
    """Make a range read as zeros and give its blocks back; zeros are written where that is not possible."""
    try:
        files.do(_fallocate, fd, _PUNCH_HOLE | _KEEP_SIZE, offset, length)
    except OSError as error:
        if error.errno not in _UNABLE:
            raise
        _overwrite_with_zeros(fd, offset, length)


def _overwrite_with_zeros(fd: int, offset: int, length: int) -> None:
    zeros = bytes(min(STEP, length))
    for start, run in data_runs(fd, offset + length, offset):
        at, end = start, start + run
        while at < end:
            at += files.do(os.pwrite, fd, zeros[: end - at], at)


def _fallocate(fd: int, mode: int, offset: int, length: int) -> None:
    call = _libc.fallocate
    call.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
    if call(fd, mode, offset, length):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def copy(origin: int, target: int) -> None:
    """Make the empty file ``target`` equal to ``origin``: shared blocks, else a sparse copy; durable on return."""
    size = os.fstat(origin).st_size
    if not _shared(origin, target):
        files.do(os.ftruncate, target, size)
        for start, length in data_runs(origin, size):
            _copy_run(origin, target, start, length)
    files.do(os.fsync, target)


def fill(origin: int, target: int, beat: Callable[[int], None], step: int = 16 * STEP) -> bool:
    """Make ``target``, which reads as zeros, equal to ``origin`` of the same size, without a byte passing through here.

    Shared blocks where the file system can, else the kernel copies the data and ``beat`` is told the bytes so far.
    False, with ``target`` reading as zeros again, where neither works or the copy would cross a network twice.
    """
    if _shared(origin, target):
        return True
    if not copies_within(target):
        return False
    copied, before = 0, (0, 0)
    try:
        for start, length in data_runs(origin, os.fstat(origin).st_size):
            at, end = start, start + length
            while at < end:
                done = files.do(os.copy_file_range, origin, target, min(end - at, step), at, at)
                if not done:
                    raise OSError(errno.EIO, "the image became shorter while it was copied")
                _write_back(target, at, done, _BEGIN)
                _write_back(target, *before, _FINISH)
                before, at, copied = (at, done), at + done, copied + done
                beat(copied)
    except OSError as error:
        if error.errno not in _UNABLE:
            raise
        punch(target, 0, os.fstat(target).st_size)
        return False
    return True


def _write_back(fd: int, offset: int, length: int, how: int) -> None:
    """Have a range written to the disk while the next one is copied, lest all of it is written at the end."""
    if length and _libc.sync_file_range(
        fd, ctypes.c_int64(offset), ctypes.c_int64(length), ctypes.c_uint(how)
    ):
        number = ctypes.get_errno()
        if number not in _UNABLE:
            raise OSError(number, os.strerror(number))


def _shared(origin: int, target: int) -> bool:
    try:
        files.do(fcntl.ioctl, target, _FICLONE, origin)
    except OSError as error:
        if error.errno not in _UNABLE:
            raise
        return False
    return True


def _copy_run(origin: int, target: int, start: int, length: int) -> None:
    at, end = start, start + length
    while at < end:
        try:
            done = files.do(os.copy_file_range, origin, target, min(end - at, 64 * STEP), at, at)
        except OSError as error:
            if error.errno not in _UNABLE:
                raise
            done = files.do(os.pwrite, target, os.pread(origin, min(end - at, STEP), at), at)
        if not done:
            raise OSError(errno.EIO, "the image became shorter while it was copied")
        at += done


def running(fd: int) -> bool:
    """Tell whether a hypervisor on this machine has the image open: QEMU's own image locks, asked, not taken."""
    for start in _QEMU_LOCKS:
        ask = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, start, 64, 0)
        try:
            answer = fcntl.fcntl(fd, _OFD_GETLK, ask)
        except OSError:
            return False
        if struct.unpack_from("h", answer)[0] != fcntl.F_UNLCK:
            return True
    return False


class BlockFile:
    """One open image file, read and written past the page cache where alignment and file system allow."""

    def __init__(self, fd: int, *, writable: bool = False) -> None:
        self.fd = fd
        self.size = os.fstat(fd).st_size
        self._direct = _reopen_direct(fd, os.O_RDWR if writable else os.O_RDONLY)
        self._aligned = self._direct >= 0

    def close(self) -> None:
        for fd in (self.fd, self._direct):
            if fd >= 0:
                os.close(fd)
        self.fd = self._direct = -1

    def read(self, offset: int, buffer: memoryview, *, cached: bool = True) -> int:
        """Fill ``buffer``; less only at the end. With ``cached`` false, from what the host holds, not its memory."""
        done = 0
        while done < len(buffer):
            count = self._read(offset + done, buffer[done:], cached)
            if not count:
                break
            done += count
        return done

    def write(self, offset: int, data: memoryview) -> None:
        done = 0
        while done < len(data):
            done += self._write(offset + done, data[done:])

    def _read(self, offset: int, buffer: memoryview, cached: bool) -> int:
        part = self._fit(offset, buffer)
        if part and not (cached and _in_memory(self.fd, offset, part)):
            try:
                return os.preadv(self._direct, [buffer[:part]], offset)
            except OSError as error:
                self._give_up_direct(error)
        if not cached:
            os.posix_fadvise(self.fd, offset, len(buffer), os.POSIX_FADV_DONTNEED)
        return os.preadv(self.fd, [buffer], offset)

    def _write(self, offset: int, data: memoryview) -> int:
        part = self._fit(offset, data)
        if part:
            try:
                return files.do(os.pwrite, self._direct, data[:part], offset)
            except OSError as error:
                self._give_up_direct(error)
        return files.do(os.pwrite, self.fd, data, offset)

    def _fit(self, offset: int, buffer: memoryview) -> int:
        """Return how many leading bytes may go past the page cache."""
        length = len(buffer) & -ALIGNMENT
        if not self._aligned or not length or offset % ALIGNMENT or buffer.readonly:
            return 0
        first = ctypes.c_char.from_buffer(buffer)
        return 0 if ctypes.addressof(first) % ALIGNMENT else length

    def _give_up_direct(self, error: OSError) -> None:
        """Go through the page cache from now on. The descriptor stays open: another thread may be using it."""
        if error.errno not in _UNABLE:
            raise error
        self._aligned = False


def _reopen_direct(fd: int, mode: int) -> int:
    try:
        return os.open(f"/proc/self/fd/{fd}", mode | os.O_DIRECT | os.O_CLOEXEC)
    except OSError:
        return -1


def _in_memory(fd: int, offset: int, length: int) -> bool:
    """Tell whether the page cache holds the whole range; no where the kernel can not say."""
    asked = struct.pack("QQ", offset, length)
    answer = ctypes.create_string_buffer(40)
    if _libc.syscall(_CACHESTAT, fd, asked, answer, 0):
        return False
    return bool(struct.unpack_from("Q", answer)[0] * mmap.PAGESIZE >= length)


class FileSource(Source):
    """One image file that is read. ``errors`` turns an OSError of this file into a DriverError."""

    def __init__(self, folder: Folder, name: str, errors: Errors) -> None:
        self._folder = folder.again()
        self._name = name
        self._errors = errors
        self._file = BlockFile(folder.open(name))
        self.size = self._file.size

    def extents(self) -> Iterator[Extent]:
        with self._errors():
            yield from extents(self._file.fd, self.size)

    def read_into(self, offset: int, buffer: memoryview) -> int:
        return self._fill(offset, buffer, cached=True)

    def read_stored(self, offset: int, buffer: memoryview) -> int:
        return self._fill(offset, buffer, cached=False)

    def _fill(self, offset: int, buffer: memoryview, *, cached: bool) -> int:
        with self._errors():
            return self._file.read(offset, buffer[: max(0, self.size - offset)], cached=cached)

    def stamp(self) -> str:
        with self._errors():
            found = self._folder.stat(self._name)
        if found is None:
            raise Missing(
                f"The disk image {self._name} is gone.",
                code="SOURCE_MISSING",
                action="Put it back, then retry.",
            )
        return stamp_of(found)

    def fileno(self) -> int:
        return self._file.fd

    def close(self) -> None:
        self._file.close()
        self._folder.close()


class FileSink(Sink):
    """One image file under its side name: everything but how it is published, which each driver adds."""

    def __init__(self, fd: int, token: str, errors: Errors) -> None:
        self.token = token
        self._errors = errors
        self._file = BlockFile(fd, writable=True)
        self.size = self._file.size
        self._reserved = False

    def reserve(self, offset: int, length: int) -> None:
        self._check_range(offset, length)
        with self._errors():
            try:
                files.do(_fallocate, self._file.fd, _KEEP_SIZE, offset, length)
                self._reserved = True
            except OSError as error:
                if error.errno not in _UNABLE:
                    raise

    def write(self, offset: int, data: memoryview) -> None:
        self._check_range(offset, len(data))
        with self._errors():
            self._file.write(offset, data)

    def hole(self, offset: int, length: int) -> None:
        self._check_range(offset, length)
        with self._errors():
            if length and (self._reserved or self._holds_data(offset, length)):
                punch(self._file.fd, offset, length)

    def flush(self) -> None:
        with self._errors():
            files.do(os.fdatasync, self._file.fd)

    def read_into(self, offset: int, buffer: memoryview) -> int:
        with self._errors():
            return self._file.read(offset, buffer, cached=False)

    def fill_from(
        self, folder: Folder, name: str, beat: Callable[[int], None], step: int = 16 * STEP
    ) -> bool:
        """Begin with the content of another file, and nothing else; False where that is not possible."""
        with self._errors():
            try:
                origin = folder.open(name)
            except FileNotFoundError:
                return False
            try:
                if os.fstat(origin).st_size != self.size:
                    return False
                if self._holds_data(0, self.size):
                    punch(self._file.fd, 0, self.size)
                return fill(origin, self._file.fd, beat, step)
            finally:
                os.close(origin)

    def close(self) -> None:
        self._file.close()

    def _holds_data(self, offset: int, length: int) -> bool:
        return next(data_runs(self._file.fd, offset + length, offset), None) is not None

    def _check_range(self, offset: int, length: int) -> None:
        if offset < 0 or length < 0 or offset + length > self.size:
            raise ValueError(f"{offset}+{length} lies outside an image of {self.size} bytes")
