"""The one place where libvirt's errors become ours. Its texts go to the log, users get the sentences below."""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from providers_app.drivers.errors import DriverError, Missing, NoSpace, Refused, Unreachable

log = logging.getLogger(__name__)

# Numbers are part of libvirt's stable interface: virErrorNumber, and virErrorDomain for RPC.
INTERNAL_ERROR, NO_SUPPORT, INVALID_ARG, OPERATION_FAILED = 1, 3, 8, 9
XML_ERROR, OPERATION_DENIED, XML_DETAIL, SYSTEM_ERROR = 27, 29, 35, 38
NO_DOMAIN, NO_NETWORK, AUTH_FAILED, NO_STORAGE_POOL, NO_STORAGE_VOL = 42, 43, 45, 49, 50
OPERATION_INVALID, CONFIG_UNSUPPORTED, OPERATION_TIMEOUT, HOOK_SCRIPT_FAILED = 55, 67, 68, 70
RPC_ERROR, AUTH_CANCELLED, NO_DOMAIN_METADATA, ACCESS_DENIED, STORAGE_VOL_EXIST = 39, 79, 80, 88, 90
XML_INVALID_SCHEMA, AUTH_UNAVAILABLE, LIBSSH, RESOURCE_BUSY = 92, 94, 98, 87
_FROM_RPC = 7

_DENIED = {OPERATION_DENIED, AUTH_FAILED, AUTH_CANCELLED, ACCESS_DENIED, AUTH_UNAVAILABLE}
_UNABLE = {NO_SUPPORT, INVALID_ARG, XML_ERROR, XML_DETAIL, CONFIG_UNSUPPORTED, XML_INVALID_SCHEMA}
_LOST = (
    "client socket is closed",
    "keepalive timeout",
    "connection closed",
    "End of file while reading",
    "support keepalive protocol",  # of a connection that was closed before it was asked for
)
_FULL = {errno.ENOSPC, errno.EDQUOT}


@contextmanager
def errors(what: str, where: str) -> Iterator[None]:
    """Turn a libvirtError about ``what`` on the host ``where`` into a DriverError."""
    import libvirt

    try:
        yield
    except libvirt.libvirtError as error:
        raise fault(error, what, where) from error


def code_of(error: Exception) -> int:
    """Return libvirt's number of an error, 0 for any other exception."""
    ask: Callable[[], int | None] | None = getattr(error, "get_error_code", None)
    return (ask() or 0) if ask else 0


def gone(error: Exception) -> bool:
    """Tell whether an error says that a volume is not there."""
    return code_of(error) == NO_STORAGE_VOL or _number(error) == errno.ENOENT


def busy(error: Exception) -> bool:
    """Tell whether a pool is busy with a copy of its own and can be asked again soon."""
    return "asynchronous jobs running" in str(error)


def in_use(error: Exception) -> bool:
    """Tell whether a volume may be in use: a moment by a stream that begins, long by a copy that the host makes."""
    return code_of(error) == OPERATION_INVALID


def fault(error: Exception, what: str, where: str) -> DriverError:
    """Say a libvirtError in our words. ``what`` names the object ("the image x"), ``where`` the host."""
    log.warning("libvirt, %s, %s: %d %s", where, what, code_of(error), _one_line(str(error)))
    code, number, text = code_of(error), _number(error), str(error)
    if number in _FULL or "No space left" in text:
        return no_space(what, where)
    if (distrust := _distrust(text, where)) is not None:
        return distrust
    if code in _DENIED or number in (errno.EACCES, errno.EPERM) or "Permission denied" in text:
        return _denied(text, what, where)
    if _unreachable(error, code, text):
        return Unreachable(
            f"The host {where} does not answer ({what}).", action="Check the host, libvirt and the way there."
        )
    return _missing(code, number, text, what, where) or _rest(code, what, where)


def no_space(what: str, where: str) -> NoSpace:
    return NoSpace(
        f"The storage pool of {where} is full: there is no room for {what}.",
        action="Free space on this host, then retry.",
    )


def _distrust(text: str, where: str) -> DriverError | None:
    """Return the fault of two sides of which one does not believe who the other is. Only the texts tell."""
    if "Host key verification failed" in text:
        return Refused(
            f"The key of the host {where} is not known, or is not the known one.",
            code="HOST_KEY",
            action="Compare its fingerprint, then add it to known_hosts of the account that runs rasweb.",
        )
    if "verify peer's certificate" in text:
        return Refused(
            f"The certificate of the host {where} is of an unknown authority, is out of date or is for another name.",
            code="CERTIFICATE",
            action="Compare it with /etc/pki/CA/cacert.pem here, and the name in it with the host's in the settings.",
        )
    if "TLS confirmation" in text:
        return Refused(
            f"The host {where} does not accept the certificate of rasweb.",
            code="PERMISSION",
            action="Have it signed by the host's authority, and list it in tls_allowed_dn_list there.",
        )
    if text.startswith("Cannot read") and "/pki/" in text:
        return Refused(
            "The certificates for TLS are missing on the machine that runs rasweb, or can not be read.",
            code="PREREQUISITE",
            action="Put them into /etc/pki: see docs/drivers/libvirt.md.",
        )
    return None


def _denied(text: str, what: str, where: str) -> DriverError:
    action = "Give the account the right to manage libvirt on this host, then retry."
    if "publickey" in text:
        action = "Put the key of the account that runs rasweb into authorized_keys on the host."
    return Refused(f"The host {where} does not let rasweb use {what}.", code="PERMISSION", action=action)


def _unreachable(error: Exception, code: int, text: str) -> bool:
    domain: Callable[[], int | None] | None = getattr(error, "get_error_domain", None)
    from_rpc = domain is not None and domain() == _FROM_RPC
    return (
        (from_rpc and code in (SYSTEM_ERROR, INTERNAL_ERROR))
        or code in (LIBSSH, RPC_ERROR)
        or (code in (SYSTEM_ERROR, INTERNAL_ERROR) and any(sign in text for sign in _LOST))
    )


def _missing(code: int, number: int, text: str, what: str, where: str) -> DriverError | None:
    if code == NO_STORAGE_POOL:
        return Refused(
            f"The host {where} has no such storage pool.",
            code="PREREQUISITE",
            action="Define and start the pool there, or correct its name.",
        )
    if code == NO_NETWORK or "Cannot get interface MTU" in text:
        return Missing(
            f"The host {where} does not have the network or bridge that is needed ({what}).",
            code="NETWORK_MISSING",
            action="Create and start it there, then retry.",
        )
    if code in (NO_STORAGE_VOL, NO_DOMAIN) or number == errno.ENOENT:
        return Missing(f"The host {where} does not have {what}.", action="Put it back, or choose another.")
    return None


def _rest(code: int, what: str, where: str) -> DriverError:
    if code in (STORAGE_VOL_EXIST, OPERATION_FAILED):
        return Refused(
            f"On the host {where} the name for {what} is taken, or is not accepted.",
            code="PATH_CONFLICT",
            action="Rename or move what has the name, then retry.",
        )
    if code in _UNABLE:
        return Refused(
            f"The host {where} can not do this: {what}.",
            code="PREREQUISITE",
            action="Look at the log: the host's libvirt or QEMU lacks something.",
        )
    if code in (OPERATION_INVALID, RESOURCE_BUSY, HOOK_SCRIPT_FAILED):
        return Refused(
            f"The host {where} refuses this now: {what} is in use or in another state.",
            code="IN_USE",
            action="Look at it with the host's own tools, then retry.",
        )
    if code == OPERATION_TIMEOUT:
        return Unreachable(f"The host {where} took too long ({what}).", code="TIMEOUT", action="Retry.")
    return DriverError(f"The host {where} reported a fault ({what}).", action="Look at the log, then retry.")


def _number(error: Exception) -> int:
    """Return the errno of a SYSTEM_ERROR, else 0."""
    ask: Callable[[], int | None] | None = getattr(error, "get_int1", None)
    return (ask() or 0) if ask and code_of(error) == SYSTEM_ERROR else 0


def _one_line(text: str) -> str:
    return " ".join(text.split())[:500]
