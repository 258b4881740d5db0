"""What a driver raises, whatever its hypervisor: its own library's errors become these in its ``errors.py``."""

from __future__ import annotations

PLACEHOLDER = "{digest12}"  # in the name of an image whose digest is not known yet
SILENT = frozenset({"UNREACHABLE", "TIMEOUT", "STALLED"})
SHUT_OUT = frozenset({"PERMISSION", "HOST_KEY", "CERTIFICATE"})


def away(code: str, permanent: bool) -> bool:
    """Whether an error says that nothing can be done on the whole host now: it is silent, or lets rasweb in no more.

    A host that does not let rasweb in may do so again; a PERMISSION that is permanent is of one object there.
    """
    return code in SILENT or (code in SHUT_OUT and not permanent)


class DriverError(Exception):
    """A fault of a host, in words for the administrator.

    ``code`` is stable and upper case, ``text`` is a whole sentence without secrets or paths of the controller,
    ``action`` says what to do next. ``permanent`` tells whether trying again by itself makes sense.
    """

    code = "FAILED"
    permanent = False

    def __init__(self, text: str, *, code: str | None = None, action: str = "") -> None:
        self.text = text.replace(PLACEHOLDER, "…")
        super().__init__(self.text)
        self.code = code or type(self).code
        self.action = action


class Unreachable(DriverError):
    """The host did not answer, or not in time. Codes: UNREACHABLE, TIMEOUT, STALLED."""

    code = "UNREACHABLE"


class Refused(DriverError):
    """The host answered no.

    Codes: REFUSED, PERMISSION, HOST_KEY, CERTIFICATE, PATH_CONFLICT, IN_USE, NOT_OURS, CONTENT_CHANGED, PREREQUISITE.
    One of SHUT_OUT that is met at connecting is not permanent: see :func:`away`.
    """

    code = "REFUSED"
    permanent = True


class NoSpace(DriverError):
    """The location is full. Code: NO_SPACE."""

    code = "NO_SPACE"
    permanent = True


class Missing(DriverError):
    """What was asked for is not there. Codes: MISSING, SOURCE_MISSING, CONTENT_LOST, NETWORK_MISSING."""

    code = "MISSING"
    permanent = True
