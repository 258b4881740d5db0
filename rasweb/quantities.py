"""Sizes, rates and durations in words."""

from __future__ import annotations

from django.utils.translation import gettext as _

UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")


def size(count: float | None) -> str:
    """Bytes as ``74.2 GiB``; one decimal from GiB up, none below; a dash for what is not known."""
    return "–" if count is None else " ".join(scaled(count, step(count)))


def share(done: int, total: int) -> str:
    """``74.2 of 120.0 GiB``, both in the unit of the total."""
    part, whole, unit = scaled(done, step(total))[0], *scaled(total, step(total))
    return _("%(part)s of %(whole)s %(unit)s") % {"part": part, "whole": whole, "unit": unit}


def rate(per_second: float) -> str:
    return f"{size(per_second)}/s"


def duration(seconds: float) -> str:
    """``2 min 31 s``: the two largest units that say something."""
    left = max(0, round(seconds))
    days, left = divmod(left, 86400)
    hours, left = divmod(left, 3600)
    minutes, left = divmod(left, 60)
    if days:
        return _("%(days)d d %(hours)d h") % {"days": days, "hours": hours}
    if hours:
        return _("%(hours)d h %(minutes)d min") % {"hours": hours, "minutes": minutes}
    if minutes:
        return _("%(minutes)d min %(seconds)d s") % {"minutes": minutes, "seconds": left}
    return _("%(seconds)d s") % {"seconds": left}


def step(count: float) -> int:
    """The index of the unit in which ``count`` is written."""
    power = 0
    while abs(count) >= 1024 and power < len(UNITS) - 1:
        count /= 1024
        power += 1
    return power


def scaled(count: float, power: int) -> tuple[str, str]:
    return f"{count / 1024**power:.{1 if power > 2 else 0}f}", UNITS[power]
