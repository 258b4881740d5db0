"""What a driver raises, whatever its hypervisor: its own library's errors become these in its ``errors.py``."""

from __future__ import annotations

PLACEHOLDER = "{digest12}"  # in the name of an image whose digest is not known yet


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
