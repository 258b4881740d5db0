"""The websocket ``/ws/?topic=templates&topic=chrome``: who may watch what; the hub does the rest.

What a browser sends is ignored. It is accepted only for a signed-in user with a role, asked again every
``RECHECK_SECONDS``; the close code 4401 says that the right to watch ended, 4400 that the address was wrong.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any, cast
from urllib.parse import parse_qs

from autobahn.exception import Disconnected
from channels.db import database_sync_to_async
from channels.layers import get_channel_layer
from django.conf import settings
from django.contrib.auth import get_user
from django.contrib.sessions.backends.db import SessionStore
from django.http import HttpRequest, parse_cookie

from rasweb.access import role
from rasweb.hub import Hub, Send, Viewer
from templates_app import pages

RECHECK_SECONDS = 30.0
MOST_TOPICS = 8
WRONG_TOPICS, NO_RIGHT, TOO_SLOW = 4400, 4401, 1013
_TOPIC = re.compile(r"[a-z]{1,32}(:\d{1,19})?")

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]

_hubs: dict[asyncio.AbstractEventLoop, Hub] = {}


def hub() -> Hub:
    """The hub of this process; it lives as long as the event loop."""
    loop = asyncio.get_running_loop()
    if loop not in _hubs:
        _hubs[loop] = Hub(get_channel_layer(), pages.frame, pages.recent)
    return _hubs[loop]


class LiveConsumer:
    """One websocket, as a plain ASGI application: frames go from the hub straight to the server."""

    def __init__(self, find_hub: Callable[[], Hub] = hub, recheck: float = RECHECK_SECONDS) -> None:
        self._hub = find_hub
        self._recheck = recheck

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        topics = topics_of(scope)
        if not topics:
            await send({"type": "websocket.close", "code": WRONG_TOPICS})
        elif not await may_watch(scope):
            await send({"type": "websocket.close", "code": NO_RIGHT})
        else:
            await send({"type": "websocket.accept"})
            await self._watch(scope, receive, send, topics)

    async def _watch(self, scope: Scope, receive: Receive, send: Send, topics: set[str]) -> None:
        here = self._hub()
        viewer = await here.join(send, topics)
        try:
            code = await _first(_until_gone(receive), _until_slow(viewer), self._until_refused(scope))
        finally:
            here.leave(viewer)
        if code:
            await send({"type": "websocket.close", "code": code})

    async def _until_refused(self, scope: Scope) -> int:
        while await may_watch(scope):
            await asyncio.sleep(self._recheck)
        return NO_RIGHT


async def _first(*ends: Awaitable[int]) -> int:
    """The close code of what ends first; the others are cancelled."""
    tasks = [asyncio.ensure_future(end) for end in ends]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        return done.pop().result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _until_gone(receive: Receive) -> int:
    while (await receive())["type"] != "websocket.disconnect":
        pass
    return 0


async def _until_slow(viewer: Viewer) -> int:
    try:
        await viewer.deliver()
    except Disconnected:  # the browser went before its server said so
        return 0
    except TimeoutError:
        pass
    return TOO_SLOW


def topics_of(scope: Scope) -> set[str]:
    """The topics asked for; empty when there are none, too many, or one is no topic."""
    asked = set(parse_qs(scope["query_string"].decode("latin1")).get("topic", []))
    right = len(asked) <= MOST_TOPICS and all(_TOPIC.fullmatch(topic) for topic in asked)
    return asked if right else set()


async def may_watch(scope: Scope) -> bool:
    """Whether the session of this socket belongs, now, to a user with a role."""
    allowed: bool = await database_sync_to_async(_session_has_role, thread_sensitive=False)(scope)
    return allowed


def _session_has_role(scope: Scope) -> bool:
    cookies = parse_cookie(dict(scope["headers"]).get(b"cookie", b"").decode("latin1"))
    session = SessionStore(cookies.get(settings.SESSION_COOKIE_NAME))
    return role(get_user(cast(HttpRequest, SimpleNamespace(session=session)))) is not None
