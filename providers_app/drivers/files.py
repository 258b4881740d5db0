"""Local files below one root. Nothing here follows a link, and every change goes through :func:`do`."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import json
import os
import re
import secrets
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, ParamSpec, Self, TypeVar

from . import errors
from .errors import Refused, Unreachable

P = ParamSpec("P")
T = TypeVar("T")

PLACEHOLDER = errors.PLACEHOLDER
NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._ -]{0,118}[A-Za-z0-9_-])?")
SMALL = 64 * 1024
MOST_ENTRIES = 20_000
NOT_A_FILE = errno.ELOOP
_NOREPLACE, _EXCHANGE = 1, 2
_UNSUPPORTED = {errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP}
_libc = ctypes.CDLL(None, use_errno=True)


def do(call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Make one call that changes a file system. The only seam: tests die before and after the n-th call here."""
    return call(*args, **kwargs)


def token() -> str:
    return secrets.token_hex(8)


def check_name(name: str) -> str:
    """Return a name that is safe as a file name on every host; PREREQUISITE for any other."""
    if not NAME.fullmatch(name):
        raise _unfit(name)
    return name


def check_image_name(name: str) -> str:
    """Check the name of an image, whose digest may still be a placeholder. No image is named like a partial one."""
    check_name(name.replace(PLACEHOLDER, "0" * 12))
    if name.endswith(".part"):
        raise _unfit(name)
    return name


def _unfit(name: str) -> Refused:
    return Refused(
        f"The name {shown(name)!r} can not be used on a host.",
        code="PREREQUISITE",
        action="Begin with a letter or digit; then use letters, digits, dots, spaces, - and _; at most 120.",
    )


def resolves(staged: str, name: str) -> bool:
    """Tell whether ``name`` is what ``staged`` is called once its digest is known."""
    head, placeholder, tail = staged.partition(PLACEHOLDER)
    if not placeholder or staged == name:
        return staged == name
    return len(name) == len(head) + 12 + len(tail) and name.startswith(head) and name.endswith(tail)


def shown(text: str, most: int = 100) -> str:
    """Return a host's text fit to be stored and shown: control and direction characters escaped, length bounded."""
    cut = text if len(text) <= most else text[: most - 1] + "…"
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in cut)


def stamp_of(found: os.stat_result) -> str:
    """Return the cheap identity of a file's content: size, inode and time of the last write."""
    return f"{found.st_size}-{found.st_ino}-{found.st_mtime_ns}"


def try_lock(fd: int) -> bool:
    """Take the lock of an open file unless somebody else holds it. It goes with the descriptor or the process."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def parse_json(data: bytes) -> Any:
    """Parse a small file that anybody may have written; ValueError for whatever is wrong with it."""
    try:
        return json.loads(data.decode())
    except (ValueError, RecursionError) as error:
        raise ValueError("not JSON") from error


class Folder:
    """An open folder. Names given to it are single names, never paths. Raises OSError."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def again(self) -> Folder:
        """Return a second handle on the same folder, closed on its own."""
        return Folder(os.dup(self.fd))

    def folder(self, name: str) -> Folder:
        return Folder(os.open(_single(name), os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=self.fd))

    def names(self) -> list[str]:
        """Return what is in the folder, sorted; EFBIG when that is absurdly much."""
        found = []
        with os.scandir(self.fd) as entries:
            for entry in entries:
                found.append(entry.name)
                if len(found) > MOST_ENTRIES:
                    raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
        return sorted(found)

    def stat(self, name: str) -> os.stat_result | None:
        """Return what is under a name (a link itself, not its aim), or None."""
        try:
            return os.stat(_single(name), dir_fd=self.fd, follow_symlinks=False)
        except FileNotFoundError:
            return None

    def open(self, name: str, flags: int = os.O_RDONLY, mode: int = 0o640) -> int:
        """Open a regular file; ELOOP for a link, folder, device or pipe, which is never waited for."""
        flags |= os.O_NOFOLLOW | os.O_NONBLOCK
        found = self.stat(name)
        if found and not stat.S_ISREG(found.st_mode):
            raise OSError(NOT_A_FILE, os.strerror(NOT_A_FILE))
        opening = do if flags & os.O_CREAT else _plainly
        fd = opening(os.open, _single(name), flags, mode, dir_fd=self.fd)
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise OSError(NOT_A_FILE, os.strerror(NOT_A_FILE))
        return fd

    def read(self, name: str, limit: int = SMALL) -> bytes:
        """Return the whole content of a small file; EFBIG beyond ``limit`` bytes."""
        fd = self.open(name)
        try:
            if os.fstat(fd).st_size > limit:
                raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
            return os.read(fd, limit + 1)
        finally:
            os.close(fd)

    def create(self, name: str, data: bytes, mode: int = 0o640) -> None:
        """Make a small file, whole and durable or (where the file system can) not at all. FileExistsError."""
        try:
            fd = do(os.open, ".", os.O_TMPFILE | os.O_WRONLY, mode, dir_fd=self.fd)
        except OSError as error:
            if error.errno not in _UNSUPPORTED | {errno.EISDIR, errno.ENOENT}:
                raise
            self._write(self.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), data)
        else:
            self._write(fd, data, link=name)

    def replace(self, name: str, data: bytes, mode: int = 0o640) -> None:
        """Put a small file in the place of another, durably. The caller holds the lock that guards it."""
        side = f"{name}.new"
        self._write(self.open(side, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), data)
        do(os.rename, side, name, src_dir_fd=self.fd, dst_dir_fd=self.fd)
        self.sync()

    def _write(self, fd: int, data: bytes, link: str = "") -> None:
        try:
            while data:
                data = data[do(os.write, fd, data) :]
            do(os.fsync, fd)
            if link:
                do(os.link, f"/proc/self/fd/{fd}", _single(link), dst_dir_fd=self.fd)
        finally:
            os.close(fd)

    def make_folder(self, name: str) -> None:
        do(os.mkdir, _single(name), 0o750, dir_fd=self.fd)

    def rename(self, old: str, new: str) -> None:
        """Rename; FileExistsError where ``new`` is taken. Also on file systems without an atomic call for it."""
        try:
            do(_renameat2, self.fd, _single(old), _single(new), _NOREPLACE)
        except OSError as error:
            if error.errno not in _UNSUPPORTED:
                raise
            self._rename_plainly(old, new)

    def _rename_plainly(self, old: str, new: str) -> None:
        found = self.stat(old)
        if found and stat.S_ISREG(found.st_mode) and self._link(old, new):
            self.unlink(old)
        elif self.stat(new):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
        else:
            do(os.rename, old, new, src_dir_fd=self.fd, dst_dir_fd=self.fd)

    def _link(self, old: str, new: str) -> bool:
        try:
            do(os.link, old, new, src_dir_fd=self.fd, dst_dir_fd=self.fd, follow_symlinks=False)
        except OSError as error:
            if error.errno not in _UNSUPPORTED | {errno.EPERM}:
                raise
            return False
        return True

    def exchange(self, one: str, other: str) -> bool:
        """Swap two names at one stroke; False where the file system has no such call."""
        try:
            do(_renameat2, self.fd, _single(one), _single(other), _EXCHANGE)
        except OSError as error:
            if error.errno not in _UNSUPPORTED:
                raise
            return False
        return True

    def unlink(self, name: str) -> None:
        with suppress(FileNotFoundError):
            do(os.unlink, _single(name), dir_fd=self.fd)

    def clear(self, *, last: str = "") -> None:
        """Delete all that is in this folder, ``last`` after everything else."""
        for name in sorted(self.names(), key=lambda name: name == last):
            found = self.stat(name)
            if found and stat.S_ISDIR(found.st_mode):
                with self.folder(name) as inner:
                    inner.clear()
                self.remove_folder(name)
            else:
                self.unlink(name)

    def remove_folder(self, name: str) -> None:
        """Remove an empty folder; one that is gone is removed."""
        with suppress(FileNotFoundError):
            do(os.rmdir, _single(name), dir_fd=self.fd)

    def sync(self) -> None:
        """Return when the names in this folder survive a crash of the machine, where the file system can say so."""
        try:
            do(os.fsync, self.fd)
        except OSError as error:
            if error.errno not in _UNSUPPORTED:
                raise

    def space(self) -> tuple[int, int]:
        """Return free and total bytes of the file system."""
        found = os.fstatvfs(self.fd)
        return found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize


class Root(Folder):
    """The folder of a host, which must stay where it was found."""

    def __init__(self, fd: int, path: str) -> None:
        super().__init__(fd)
        self.path = path

    def check_present(self) -> None:
        """Raise Unreachable when the path leads elsewhere now: moved away, unmounted, mounted over."""
        try:
            there = os.stat(self.path)
        except (FileNotFoundError, NotADirectoryError):
            there = None
        if there is None or not os.path.samestat(there, os.fstat(self.fd)):
            raise gone(self.path)

    @contextmanager
    def lock(self, name: str, seconds: float = 20.0) -> Iterator[None]:
        """Hold the host's lock for a short change; ETIMEDOUT when another process holds it too long."""
        fd = self.open(name, os.O_RDWR | os.O_CREAT, 0o600)
        deadline = time.monotonic() + seconds
        try:
            while not try_lock(fd):
                if time.monotonic() > deadline:
                    raise TimeoutError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))
                time.sleep(0.01)
            yield
        finally:
            os.close(fd)


def gone(path: str) -> Unreachable:
    """Return the fault of a host folder that is not where it was."""
    return Unreachable(
        f"The host folder {path} is not there: it was moved away or is not mounted.",
        action="Mount it or put it back.",
    )


def open_below(path: str, roots: Sequence[str]) -> Root:
    """Open a host's folder, which must lie in one of the allowed roots. PREREQUISITE, or OSError."""
    if not path or not os.path.isabs(path) or "\0" in path:
        raise Refused(
            "The folder of a host must be an absolute path.", code="PREREQUISITE", action="Correct the path."
        )
    real = Path(os.path.realpath(path))
    top = next((top for root in roots if real.is_relative_to(top := Path(os.path.realpath(root)))), None)
    if top is None:
        raise Refused(
            f"The folder {shown(path, 300)} lies outside the folders that are allowed for hosts.",
            code="PREREQUISITE",
            action="Choose a folder below an allowed root, or have this one allowed (RASWEB_ALLOWED_ROOTS).",
        )
    return Root(_walk(top, real.relative_to(top).parts), path)


def _walk(top: Path, parts: Sequence[str]) -> int:
    fd = os.open(top, os.O_RDONLY | os.O_DIRECTORY)
    for part in parts:
        outer = fd
        try:
            fd = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=outer)
        finally:
            os.close(outer)
    return fd


def _single(name: str) -> str:
    if "/" in name or name in ("", ".", "..") or "\0" in name:
        raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))
    return name


def _plainly(call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    return call(*args, **kwargs)


def _renameat2(folder: int, old: str, new: str, flags: int) -> None:
    call = getattr(_libc, "renameat2", None)
    if call is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    if call(folder, os.fsencode(old), folder, os.fsencode(new), flags):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
