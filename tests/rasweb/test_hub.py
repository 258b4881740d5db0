import asyncio
from collections.abc import Callable
from contextlib import suppress

import pytest
from redis import RedisError

from rasweb import live
from rasweb.hub import Pace
from rasweb.relay import Relay
from tests.rasweb.room import Room, until
from tests.rasweb.servers import RedisServer

FAST = Pace(flush=0.03, repair=0.05, overlap=0.0, beat=0.05, send=0.1, pause=0.05)
CALM = Pace(flush=0.03, repair=60, beat=60, send=0.1, pause=0.2)


@pytest.fixture(params=["relay", "redis"])
async def layer(request, tmp_path):
    if request.param == "relay":
        layer = Relay(str(tmp_path))
        yield layer
        await layer.close()
    else:
        server = RedisServer(tmp_path).start()
        layer = server.layer()
        yield layer
        await layer.flush()
        server.stop()


@pytest.fixture
async def room(tmp_path):
    layer = Relay(str(tmp_path))
    room = Room(layer, CALM)
    yield room
    await room.close()
    await layer.close()


async def test_a_change_reaches_those_who_look_at_it(layer):
    room = Room(layer, CALM)
    looking, elsewhere = await room.browser("templates", "chrome"), await room.browser("providers")
    await until(room.hub._listening.is_set)  # a busy layer is not waited for
    await room.poke(("template", 1))
    await until(lambda: looking.frames)
    assert looking.got == [{"hello": True}, {"topic": "templates", "parts": "template1", "refresh": False}]
    assert elsewhere.got == [{"hello": True}]
    await room.close()


async def test_a_burst_is_rendered_once_for_all(room):
    browsers = [await room.browser("templates") for _ in range(20)]
    with room.rows.held():
        await room.poke(("template", 0))
        await until(lambda: room.rows.asked)
        for pk in range(30):
            await room.poke(("template", pk), ("target", pk))
        await until(lambda: len(room.hub._dirty.get("templates", ())) == 60)
    await until(lambda: len(room.rows.asked) == 2)
    assert len(room.rows.asked[1][1]) == 60
    await until(lambda: all(len(browser.frames) == len(room.rows.asked) for browser in browsers))


async def test_what_nobody_looks_at_is_not_rendered(room):
    browser = await room.browser("providers")
    await room.poke(("template", 1))
    await room.poke(("provider", 1), topic="providers")
    await until(lambda: browser.frames)
    assert [topic for topic, _ in room.rows.asked] == ["providers"]


async def test_a_slow_browser_holds_one_frame_and_is_told_to_read_again(tmp_path):
    layer = Relay(str(tmp_path))
    room = Room(layer, Pace(flush=0.01, repair=60, beat=60, send=60))
    slow, quick = await room.browser("templates"), await room.browser("templates")
    slow.open.clear()
    for pk in range(4):
        await room.poke(("template", pk))
        await until(lambda wanted=pk + 1: len(quick.frames) >= wanted)
    slow.open.set()
    await until(lambda: len(slow.frames) == 2)
    assert [(frame["parts"], frame["refresh"]) for frame in slow.frames] == [
        ("template0", False),
        ("template3", True),
    ]
    await room.close()
    await layer.close()


async def test_a_browser_that_takes_nothing_is_given_up(room):
    browser = await room.browser("templates")
    browser.open.clear()
    await room.poke(("template", 1))
    await until(lambda: room.tasks[0].done())
    assert isinstance(room.tasks[0].exception(), TimeoutError)


async def test_a_lost_poke_is_found_by_looking(tmp_path):
    layer = Relay(str(tmp_path))
    room = Room(layer, FAST)
    browser = await room.browser("templates")
    room.rows.lately = {"templates": {("template", 7)}, "guests": {("guest", 1)}}
    await until(lambda: browser.frames)
    assert browser.frames[0]["parts"] == "template7"
    assert room.rows.looks == sorted(room.rows.looks)
    await room.close()
    await layer.close()


async def test_a_fault_while_rendering_loses_no_change(room):
    browser = await room.browser("templates")
    room.rows.faults = 2
    await room.poke(("template", 1))
    await until(lambda: browser.frames)
    assert browser.frames[0]["parts"] == "template1"


async def test_a_topic_that_can_not_be_shown_does_not_stop_the_others(room):
    room.rows.poisoned = "providers"
    blind, looking = await room.browser("providers"), await room.browser("templates")
    for pk in range(3):
        await room.poke(("provider", pk), topic="providers")
        await room.poke(("template", pk))
        await until(lambda wanted=pk + 1: len(looking.frames) >= wanted)
    await until(lambda: blind.frames)
    assert blind.frames[0] == {"topic": "providers", "parts": "", "refresh": True}


async def test_the_server_says_that_it_lives(tmp_path):
    layer = Relay(str(tmp_path))
    room = Room(layer, FAST)
    browser = await room.browser("templates")
    await until(lambda: len(browser.got) > 2)
    assert browser.got[1:3] == [{"beat": 0}, {"beat": 1}]
    await room.close()
    await layer.close()


async def keep_poking(room: Room, server: RedisServer, seen: Callable[[], object]) -> None:
    """Change rows until one change is seen."""
    while not seen():
        with suppress(OSError, RedisError):
            layer = server.layer()
            await layer.group_send(live.GROUP, {"type": "poke", "topics": {"templates": [["template", 1]]}})
            await layer.flush()
        await asyncio.sleep(0.05)


async def test_a_layer_that_is_down_is_used_as_soon_as_it_is_there(tmp_path):
    server = RedisServer(tmp_path)
    room = Room(server.layer(), CALM)
    browser = await room.browser("templates")
    server.start()
    await asyncio.wait_for(keep_poking(room, server, lambda: browser.frames), 10)
    server.stop()
    server.start()
    before = len(browser.frames)
    await asyncio.wait_for(keep_poking(room, server, lambda: len(browser.frames) > before), 10)
    await room.close()
    server.stop()


async def test_who_left_gets_nothing_more(room):
    browser, other = await room.browser("templates"), await room.browser("templates")
    room.hub.leave(browser.viewer)
    await room.poke(("template", 1))
    await until(lambda: other.frames)
    assert browser.frames == []
