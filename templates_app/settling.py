"""What becomes of a target whose copy did not come to its end: another try by itself, or Failed to distribute."""

from __future__ import annotations

from typing import Any

from providers_app import health
from providers_app.drivers.errors import away
from templates_app.models import DistributionTarget
from templates_app.models.work import error
from templates_app.states import Desired, Phase


def fail(
    target: DistributionTarget, code: str, text: str, action: str, *, permanent: bool, kept: bool = False
) -> None:
    """Settle a failed attempt: another try later by itself, or Failed to distribute.

    ``kept``: what is on the host can be resumed even after a permanent fault.
    """
    if away(code, permanent):
        health.suspect(target.provider, code, text)
    if not _read_orders(target):
        return
    cause = error(code, text, action)
    common: dict[str, Any] = {
        "rate": 0,
        "reading_from": None,
        "attempt": target.attempt,
        "bytes_peak": 0 if permanent and not kept else max(target.bytes_peak, target.bytes_done),
    }
    next_try = target.next_try()
    if target.cancel or target.desired == Desired.ABSENT:
        target.release(Phase.WAITING, next_try_at=None, **common | {"attempt": 0}, **cause)
    elif code == "CHECKSUM_MISMATCH" and target.attempt == 1:
        target.release(Phase.WAITING, next_try_at=None, bytes_done=0, **common, **cause)
    elif permanent or next_try is None:
        target.release(Phase.FAILED, **common, **cause)
    else:
        target.release(Phase.WAITING, next_try_at=next_try, **common, **cause)


def put_back(target: DistributionTarget, note: str = "Interrupted; goes on from where it was.") -> None:
    """It is not the target's fault: the next worker goes on, and the attempt does not count."""
    attempt = max(0, target.attempt - 1)
    target.release(
        Phase.WAITING,
        note,
        attempt=attempt,
        bytes_peak=max(target.bytes_peak, target.bytes_done),
        rate=0,
        reading_from=None,
    )


def settle_cancelled(target: DistributionTarget, *, kept: bool) -> None:
    """A removal goes on as one, everything else failed as cancelled; but not before what was copied is gone."""
    clean: dict[str, Any] = {
        "rate": 0,
        "reading_from": None,
        "bytes_done": 0,
        "bytes_peak": 0,
        "attempt": 0,
        "next_try_at": None,
    }
    if not _read_orders(target):
        return
    if target.desired == Desired.ABSENT:
        target.release(Phase.WAITING, "The copy was cancelled.", cancel=False, **clean)
    elif kept:
        target.release(
            Phase.WAITING, "Cancelled; what was copied has yet to be deleted.", cancel=True, **clean
        )
    else:
        cause = error("CANCELLED", "The distribution was cancelled.", "Retry when you want it again.")
        target.release(Phase.FAILED, cancel=False, **clean, **cause)


def _read_orders(target: DistributionTarget) -> bool:
    """Read what was ordered meanwhile; False where the row is gone, since its provider was forgotten."""
    try:
        target.refresh_from_db(fields=["desired", "cancel"])
    except DistributionTarget.DoesNotExist:
        return False
    return True
