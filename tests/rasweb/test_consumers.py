import asyncio

import pytest
from asgiref.sync import sync_to_async
from autobahn.exception import Disconnected
from channels.testing import WebsocketCommunicator
from django.contrib.auth.models import Group, User
from django.test import Client

from rasweb.asgi import application
from rasweb.consumers import NO_RIGHT, TOO_SLOW, LiveConsumer, topics_of
from rasweb.hub import Hub, Pace
from rasweb.relay import Relay
from tests.rasweb.room import Rows, until

pytestmark = pytest.mark.django_db(transaction=True)
ORIGIN = b"http://localhost:8000"


@sync_to_async
def signed_in(*groups: str) -> tuple[User, bytes]:
    """A user in these groups and the cookie of a session of theirs."""
    user = User.objects.create_user("ada", password="secret")
    user.groups.set(Group.objects.filter(name__in=groups))
    client = Client()
    client.force_login(user)
    return user, "; ".join(f"{name}={cookie.value}" for name, cookie in client.cookies.items()).encode()


def socket_of(
    cookie: bytes, app=application, path="/ws/?topic=templates", origin=ORIGIN
) -> WebsocketCommunicator:
    return WebsocketCommunicator(app, path, headers=[(b"origin", origin), (b"cookie", cookie)])


@pytest.fixture
async def hub(tmp_path):
    layer = Relay(str(tmp_path))
    rows = Rows()
    hub = Hub(layer, rows.frame, rows.recent, Pace(flush=0.01, repair=60, beat=60, send=0.1, pause=0.1))
    yield hub
    await hub.close()
    await layer.close()


async def test_a_viewer_is_greeted_and_gets_what_changes(hub):
    _, cookie = await signed_in("Viewer")
    browser = socket_of(cookie, LiveConsumer(lambda: hub))
    assert (await browser.connect())[0]
    assert await browser.receive_json_from() == {"hello": True}
    await browser.send_to(text_data='{"delete": "everything"}')
    hub.mark({"templates": [("template", 1)]})
    assert await browser.receive_json_from() == {"topic": "templates", "parts": "template1", "refresh": False}
    await browser.disconnect()
    await until(lambda: not hub._viewers)


async def test_strangers_and_users_without_a_role_are_not_accepted():
    _, cookie = await signed_in()
    for one in (b"", b"rasweb_session=nonsense", cookie):
        assert await socket_of(one).connect() == (False, NO_RIGHT)


@pytest.mark.parametrize(
    "origin", [b"http://localhost:8001", b"https://localhost:8000", b"http://evil.example:8000", b""]
)
async def test_another_origin_is_not_accepted(origin):
    _, cookie = await signed_in("Operator")
    assert not (await socket_of(cookie, origin=origin).connect())[0]


async def test_the_right_to_watch_is_asked_again(hub):
    user, cookie = await signed_in("Viewer")
    browser = socket_of(cookie, LiveConsumer(lambda: hub, recheck=0.05))
    assert (await browser.connect())[0]
    await browser.receive_json_from()
    user.is_active = False
    await user.asave()
    assert await browser.receive_output() == {"type": "websocket.close", "code": NO_RIGHT}


async def test_a_browser_that_went_in_the_middle_of_a_frame_ends_its_socket_quietly(hub):
    _, cookie = await signed_in("Viewer")

    async def send(message: dict) -> None:
        if message["type"] == "websocket.send":
            raise Disconnected("Attempt to send on a closed protocol")

    async def receive() -> dict:
        return await receiving.get()

    receiving: asyncio.Queue = asyncio.Queue()
    receiving.put_nowait({"type": "websocket.connect"})
    scope = {"query_string": b"topic=templates", "headers": [(b"cookie", cookie)]}
    await asyncio.wait_for(LiveConsumer(lambda: hub)(scope, receive, send), 5)
    assert not hub._viewers


async def test_a_browser_that_takes_nothing_is_closed(hub):
    _, cookie = await signed_in("Viewer")
    sent = []

    async def send(message: dict) -> None:
        sent.append(message)
        if message["type"] == "websocket.send":
            await asyncio.Event().wait()

    async def receive() -> dict:
        if not sent:
            return {"type": "websocket.connect"}
        return await asyncio.Future()

    scope = {"type": "websocket", "query_string": b"topic=templates", "headers": [(b"cookie", cookie)]}
    await asyncio.wait_for(LiveConsumer(lambda: hub)(scope, receive, send), 5)
    assert [message.get("code") for message in sent] == [None, None, TOO_SLOW]


@pytest.mark.parametrize(
    ("query", "topics"),
    [
        (b"topic=templates&topic=template:12", {"templates", "template:12"}),
        (b"topic=templates&topic=templates", {"templates"}),
        (b"", set()),
        (b"topic=Templates", set()),
        (b"topic=template:x", set()),
        (b"topic=a\n", set()),
        (b"&".join(b"topic=template:%d" % number for number in range(9)), set()),
    ],
)
async def test_only_topics_are_topics(query, topics):
    assert topics_of({"query_string": query}) == topics
