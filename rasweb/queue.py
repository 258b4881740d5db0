"""The queue's broker: rows in our own database, so that enqueueing and a change of state commit together."""

from __future__ import annotations

import logging
import time

from django.db import DatabaseError, connections
from django_q.brokers.orm import ORM

from rasweb import pulse

log = logging.getLogger(__name__)

PAUSE_SECONDS = 1.0


class Broker(ORM):
    """django-q's database broker that waits out an unreachable or locked database."""

    def dequeue(self) -> list[tuple[int, str]] | None:
        """The next message as ``[(key, payload)]``; None after a short wait if there is none."""
        pulse.beat(pulse.Beat.PUSHER)
        try:
            messages: list[tuple[int, str]] | None = super().dequeue()
        except DatabaseError as error:
            log.warning("The queue can not be read, trying again: %s", error)
            connections.close_all()
            time.sleep(PAUSE_SECONDS)
            return None
        return messages
