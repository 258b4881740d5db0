"""What an error of the operating system means for a host that is a folder: one table, used by each such driver."""

from __future__ import annotations

import errno
import os

from .errors import DriverError, Missing, NoSpace, Refused, Unreachable

_FULL = {errno.ENOSPC, errno.EDQUOT}
_DENIED = {errno.EACCES, errno.EPERM, errno.EROFS}
_GONE = {errno.ENOENT}
_SILENT = {
    errno.ESTALE,
    errno.EIO,
    errno.ENOTCONN,
    errno.EHOSTDOWN,
    errno.EHOSTUNREACH,
    errno.ENETDOWN,
    errno.ENETUNREACH,
    errno.ECONNABORTED,
    errno.ECONNRESET,
    errno.EREMOTEIO,
    errno.ENODEV,
    errno.ENXIO,
}
_ODD_FILE = {errno.ELOOP, errno.ENOTDIR, errno.EISDIR, errno.EMLINK}
_TAKEN = {errno.EEXIST, errno.ENOTEMPTY}
_UNABLE = {errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EFBIG, errno.ENAMETOOLONG}


def fault(error: OSError, what: str, where: str) -> DriverError:
    """Say ``error`` in our words. ``what`` names the object ("the image x"), ``where`` the host's own folder."""
    number = error.errno or 0
    reason = os.strerror(number) if number else type(error).__name__
    if number in _FULL:
        return NoSpace(
            f"The host folder {where} is full: there is no room for {what}.",
            action="Free space on this host, then retry.",
        )
    if number in _DENIED:
        return _denied(number, what, where)
    if number in _GONE:
        return Missing(
            f"The host folder {where} does not hold {what}.", action="Put it back, or choose another."
        )
    if number == errno.ETIMEDOUT:
        return Unreachable(
            f"The host folder {where} did not answer in time ({what}).",
            code="TIMEOUT",
            action="Check the mount and the server behind it.",
        )
    if number in _SILENT:
        return Unreachable(
            f"The host folder {where} does not answer: {reason} ({what}).",
            action="Check the mount and the server behind it.",
        )
    return _rest(number, reason, what, where)


def _denied(number: int, what: str, where: str) -> DriverError:
    why = "it is mounted read-only" if number == errno.EROFS else "access was denied"
    return Refused(
        f"The host folder {where} does not let rasweb use {what}: {why}.",
        code="PERMISSION",
        action="Give the account that runs rasweb the right to read and write there, then retry.",
    )


def _rest(number: int, reason: str, what: str, where: str) -> DriverError:
    if number in _ODD_FILE:
        return Refused(
            f"In the host folder {where}, {what} is not an ordinary file or folder; links are not followed.",
            code="PREREQUISITE",
            action="Replace it by a real file or folder.",
        )
    if number in _TAKEN:
        return Refused(
            f"In the host folder {where}, the name for {what} is taken.",
            code="PATH_CONFLICT",
            action="Move the other file or folder away, or rename it.",
        )
    if number in _UNABLE:
        return Refused(
            f"The file system of the host folder {where} can not do this: {reason} ({what}).",
            code="PREREQUISITE",
            action="Use a file system with file locks, long names and large files.",
        )
    return DriverError(f"The host folder {where} reported a fault: {reason} ({what}).", action="Retry.")
