"""The only sender of live updates: *what* changed, never how it looks.

A poke is a hint. It leaves after the commit, costs at most ``LIMIT_SECONDS``, and is dropped when the channel
layer does not take it; the web process finds what was lost by itself within seconds.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

from asgiref.sync import async_to_sync
from channels.layers import get_channel_layer
from django.db import transaction

from rasweb.relay import Relay

log = logging.getLogger(__name__)

GROUP = "live"
LIMIT_SECONDS = 0.05
PAUSE_SECONDS = 1.0

_silent_until = 0.0


def changed(kind: str, pk: int, *topics: str) -> None:
    """Once this is committed, tell pages about ``topics`` that row ``pk`` of ``kind`` is not as they show it."""
    all_changed(kind, {pk: topics})


def all_changed(kind: str, topics: Mapping[int, Iterable[str]]) -> None:
    """The same for many rows at once: the pages that show each, by its key."""
    keys = defaultdict(list)
    for pk, shown_on in topics.items():
        for topic in shown_on:
            keys[topic].append([kind, pk])
    if keys:
        transaction.on_commit(partial(_poke, {"type": "poke", "topics": dict(keys)}), robust=True)


def _poke(message: dict[str, Any]) -> None:
    """Send; after a failure stay silent for a moment, so that work is not slowed by a layer that is down."""
    global _silent_until
    if time.monotonic() < _silent_until:
        return
    try:
        _send(message)
    except Exception as error:  # noqa: BLE001  # work never fails because nobody could be told of it
        _silent_until = time.monotonic() + PAUSE_SECONDS
        log.warning("A live update was not sent: %s: %s", type(error).__name__, error)


def _send(message: dict[str, Any]) -> None:
    layer = get_channel_layer()
    if isinstance(layer, Relay):
        layer.publish(GROUP, message, LIMIT_SECONDS)
    elif layer is not None:
        async_to_sync(_send_in_time)(layer, message)


async def _send_in_time(layer: Any, message: dict[str, Any]) -> None:
    await asyncio.wait_for(layer.group_send(GROUP, message), LIMIT_SECONDS)
