"""Why is it slow: what a copy's time goes into, lately and in all."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from math import ceil
from typing import Any

from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from rasweb.quantities import duration, rate, size
from templates_app.transfer import spent

RECENT_SECONDS = 10.0
WORTH_TELLING = 0.1
SENDING = (spent.SOURCE, spent.HASH, spent.OTHERS, spent.LIMIT, spent.WRITE)
WORDS = {
    spent.PREPARE: gettext_lazy("preparing"),
    spent.COPY: gettext_lazy("the provider's own copying"),
    spent.SOURCE: gettext_lazy("reading the source"),
    spent.HASH: gettext_lazy("computing digests"),
    spent.OTHERS: gettext_lazy("slower providers beside it"),
    spent.LIMIT: gettext_lazy("the bandwidth limit"),
    spent.WRITE: gettext_lazy("writing to the provider"),
    spent.FLUSH: gettext_lazy("the provider's storage"),
    spent.VERIFY: gettext_lazy("reading back"),
}


class Timing:
    """Follows the seconds that the engine counts for one lane."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._marks: deque[tuple[float, Mapping[str, float]]] = deque([(clock(), {})])

    def note(self, seconds: Mapping[str, float]) -> dict[str, Any]:
        """What to keep with the target: all ``seconds`` so far, and ``lately``, those of the last ten or so."""
        now = self._clock()
        self._marks.append((now, seconds))
        while len(self._marks) > 2 and now - self._marks[1][0] >= RECENT_SECONDS:
            self._marks.popleft()
        before = self._marks[0][1]
        lately = {what: round(spent - before.get(what, 0.0), 1) for what, spent in seconds.items()}
        return {"seconds": dict(seconds), "lately": {what: some for what, some in lately.items() if some > 0}}


def held_up_by(timing: Mapping[str, Any]) -> str:
    """The name of what holds a copy up now, empty while that is not known.

    Proving goes on beside sending, so it counts only where nothing is sent.
    """
    lately = timing.get("lately") or {}
    sending = {what: some for what, some in lately.items() if what in SENDING}
    which = sending or lately
    return max(which, key=which.__getitem__) if which else ""


def sentence(timing: Mapping[str, Any]) -> str:
    """``Held up by: the bandwidth limit 74 %, writing to the provider 20 %``; empty while nothing is known."""
    cause = held_up_by(timing)
    if not cause:
        return ""
    lately = Counter(timing["lately"])
    shares = {what: seconds / lately.total() for what, seconds in lately.most_common(3)}
    others = [what for what, share in shares.items() if what != cause and share >= WORTH_TELLING]
    parts = (
        f"{WORDS.get(what, what)} {100 * lately[what] / lately.total():.0f} %" for what in [cause, *others]
    )
    return _("Held up by: %s") % ", ".join(parts)


def concluded(timing: Mapping[str, Any], took: float, sent: int) -> dict[str, Any]:
    """What stays of a copy that was published: ``took`` in seconds, ``sent`` in bytes."""
    return {**timing, "took": round(took, 1), "sent": sent}


def outcome(timing: Mapping[str, Any]) -> str:
    """``46.0 GiB in 2 min 31 s · 312 MiB/s``: what was sent, and its mean rate; empty where nothing was sent."""
    took, sent = timing.get("took"), timing.get("sent")
    if not took or not sent:
        return ""
    what = {"size": size(sent), "duration": duration(ceil(took))}
    return " · ".join([_("%(size)s in %(duration)s") % what, rate(sent / took)])


def summary(timing: Mapping[str, Any]) -> dict[str, Any] | None:
    """As plain data; None before the first copy."""
    if not timing:
        return None
    return {"held_up_by": held_up_by(timing) or None, "seconds": timing.get("seconds", {})}
