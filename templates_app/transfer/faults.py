"""Faults in words for the administrator, whatever raised them."""

from __future__ import annotations

import errno

_PERMANENT_ERRNO = {
    errno.ENOSPC: ("NO_SPACE", "The location is full.", "Free some space on the host, then retry."),
    errno.EDQUOT: ("NO_SPACE", "The quota of the location is used up.", "Raise the quota, then retry."),
    errno.EFBIG: ("NO_SPACE", "The image is larger than the location can hold.", "Use another location."),
    errno.EACCES: ("PERMISSION", "The location refused access.", "Check the permissions of the location."),
    errno.EPERM: ("PERMISSION", "The location refused access.", "Check the permissions of the location."),
    errno.EROFS: ("PERMISSION", "The location is read-only.", "Check how the location is mounted."),
}
_MISSING = frozenset({"MISSING", "SOURCE_MISSING", "CONTENT_LOST"})
_CHANGED = frozenset({"SOURCE_CHANGED", "CONTENT_CHANGED"})


class Fault(Exception):
    """Ends a lane or the run. ``permanent`` faults are not worth another try.

    What is staged on the host is ``kept`` after all others; after a permanent one only where nothing is wrong with it.
    """

    def __init__(self, code: str, text: str, *, action: str = "", permanent: bool = False) -> None:
        super().__init__(text)
        self.code = code
        self.text = text
        self.action = action
        self.permanent = permanent
        self.kept = not permanent


class Closed(Exception):
    """The lane or the run was closed while a thread worked for it; the reason is already known."""


def fault_of(error: BaseException) -> Fault:
    """Translate what a host raised. An error of no known shape is ours: FAILED, worth another try."""
    if isinstance(error, Fault):
        return error
    text = getattr(error, "text", None)
    if isinstance(text, str):
        return Fault(
            str(getattr(error, "code", "FAILED")),
            text,
            action=str(getattr(error, "action", "")),
            permanent=bool(getattr(error, "permanent", False)),
        )
    if isinstance(error, OSError):
        return _fault_of_errno(error.errno or 0)
    return Fault(
        "FAILED", "The transfer ended with an unexpected error.", action="Look into the worker's log."
    )


def _fault_of_errno(number: int) -> Fault:
    if number in _PERMANENT_ERRNO:
        code, text, action = _PERMANENT_ERRNO[number]
        return Fault(code, text, action=action, permanent=True)
    name = errno.errorcode.get(number, "unknown")
    text = f"The host reported an input/output error ({name})."
    return Fault("IO_ERROR", text, action="Check the host's storage.")


def source_fault_of(error: BaseException) -> Fault:
    """Translate what the source raised: what may pass is SOURCE_UNREACHABLE, what stays keeps its own name."""
    fault = fault_of(error)
    if fault.code in _MISSING:
        return Fault("SOURCE_MISSING", fault.text, action=fault.action, permanent=True)
    if fault.code in _CHANGED:
        return Fault("SOURCE_CHANGED", fault.text, action=fault.action, permanent=True)
    if fault.permanent or fault.code == "FAILED":
        return fault
    text = f"The source can not be read: {fault.text}"
    return Fault("SOURCE_UNREACHABLE", text, action=fault.action or "Check the source host.")


def source_changed() -> Fault:
    return Fault(
        "SOURCE_CHANGED",
        "The source disk was changed while it was read, so the copy was given up.",
        action="Make sure that nothing writes to the source disk, then retry.",
        permanent=True,
    )


def checksum_mismatch() -> Fault:
    return Fault(
        "CHECKSUM_MISMATCH",
        "What was read back from the host is not what was sent, so the copy was removed.",
        action="Retry; if it happens again, check the host's storage.",
        permanent=True,
    )


def content_changed(how: str = "it was changed while it was read") -> Fault:
    return Fault(
        "CONTENT_CHANGED",
        f"The image on the host differs from the version it should hold: {how}.",
        action="Retry to put a new copy beside it.",
        permanent=True,
    )


def stalled(seconds: float) -> Fault:
    text = f"The host accepted no data for {seconds:.0f} seconds."
    return Fault("STALLED", text, action="Check the host and its network.")


def own_disk_full() -> Fault:
    return Fault(
        "NO_SPACE",
        "The disk that holds rasweb's own data is full.",
        action="Free some space there, then retry.",
        permanent=True,
    )


def bad_lane() -> Fault:
    return Fault("FAILED", "The copy can not take this host along.", permanent=True)


def cancelled() -> Fault:
    return Fault("CANCELLED", "The copy was cancelled.", permanent=True)


def stopped() -> Fault:
    return Fault("STOPPED", "The copy was interrupted and will go on from where it was.")
