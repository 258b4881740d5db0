"""The queue's broker: rows in our own database, so that enqueueing and a change of state commit together."""

from __future__ import annotations

import logging
import time

from django.db import DatabaseError, connections
from django.utils import timezone
from django_q.brokers.orm import ORM
from django_q.conf import Conf

from rasweb import pulse

log = logging.getLogger(__name__)

PAUSE_SECONDS = 1.0
_WAITING = "SELECT 1 FROM django_q_ormq WHERE lock < %s LIMIT 1"


class Broker(ORM):
    """django-q's database broker that waits out an unreachable or locked database."""

    def dequeue(self) -> list[tuple[int, str]] | None:
        """The next message as ``[(key, payload)]``; None after a short wait if there is none."""
        pulse.beat(pulse.Beat.PUSHER)
        try:
            if not self._anything_waits():
                time.sleep(Conf.POLL)
                return None
            messages: list[tuple[int, str]] | None = super().dequeue()
        except DatabaseError as error:
            log.warning("The queue can not be read, trying again: %s", error)
            connections.close_all()
            time.sleep(PAUSE_SECONDS)
            return None
        return messages

    def _anything_waits(self) -> bool:
        """Asked several times a second, day and night: plain SQL, since building a query takes longest."""
        connection = connections[Conf.ORM]
        with connection.cursor() as cursor:
            cursor.execute(_WAITING, [connection.ops.adapt_datetimefield_value(timezone.now())])
            return cursor.fetchone() is not None
