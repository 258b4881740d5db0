import asyncio
import os
import socket
import stat
import time
from contextlib import suppress

import pytest

from rasweb import relay
from rasweb.relay import Relay
from tests.rasweb.servers import publish_elsewhere


@pytest.fixture
async def web(tmp_path):
    """The relay as the web process holds it."""
    layer = Relay(str(tmp_path))
    yield layer
    await layer.close()


async def take(layer: Relay, channel: str, count: int = 1) -> list:
    async with asyncio.timeout(5):
        return [await layer.receive(channel) for _ in range(count)]


async def test_what_another_process_sends_arrives_in_order(web, tmp_path):
    channel = await web.new_channel()
    await web.group_add("live", channel)
    sender = publish_elsewhere(tmp_path, "live", 200)
    got = await take(web, channel, 200)
    assert [message["number"] for message in got] == list(range(200))
    assert sender.communicate(timeout=5)[0].strip() == b"200"


async def test_only_members_of_the_group_get_it(web, tmp_path):
    member, other, former = [await web.new_channel() for _ in range(3)]
    for group, channel in (("live", member), ("else", other), ("live", former)):
        await web.group_add(group, channel)
    await web.group_discard("live", former)
    await web.group_send("live", {"number": 1})
    await web.group_send("else", {"number": 2})
    assert await take(web, other) == [{"number": 2}]
    assert await take(web, member) == [{"number": 1}]
    await web.send(former, {"number": 3})
    assert await take(web, former) == [{"number": 3}]


async def test_the_socket_is_for_its_owner_only(web):
    await web.new_channel()
    assert stat.S_IMODE(os.stat(web.address).st_mode) == 0o600


async def test_a_new_web_process_takes_over_from_one_that_was_killed(web, tmp_path):
    await web.new_channel()
    successor = Relay(str(tmp_path))
    channel = await successor.new_channel()
    await successor.group_add("live", channel)
    assert Relay(str(tmp_path)).publish("live", {"number": 1})
    assert await take(successor, channel) == [{"number": 1}]
    await successor.close()


def test_without_a_web_process_a_message_is_dropped_at_once(tmp_path):
    layer = Relay(str(tmp_path))
    assert not layer.publish("live", {})
    (tmp_path / "live.sock").touch()
    assert not layer.publish("live", {})


async def test_a_web_process_that_does_not_read_costs_the_sender_no_more_than_its_limit(web, tmp_path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as frozen:
        frozen.bind(web.address)
        frozen.listen(4)
        with suppress(TimeoutError):
            while web.publish("live", {"text": "x" * 1000}):
                pass
        began = time.monotonic()
        with pytest.raises(TimeoutError):
            web.publish("live", {}, seconds=60)
        assert time.monotonic() - began < 60


async def test_a_sender_that_hangs_does_not_hold_up_the_others_for_long(web, monkeypatch):
    monkeypatch.setattr(relay, "_SENDER_SECONDS", 0.05)
    channel = await web.new_channel()
    await web.group_add("live", channel)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as hanging:
        hanging.connect(web.address)
        await web.group_send("live", {"number": 1})
        assert await take(web, channel) == [{"number": 1}]


async def test_a_burst_waits_while_the_web_process_is_busy(web, tmp_path):
    channel = await web.new_channel()
    await web.group_add("live", channel)
    sender = publish_elsewhere(tmp_path, "live", 500)
    assert sender.communicate(timeout=10)[0].strip() == b"500"  # this loop stands still meanwhile
    assert len(await take(web, channel, 500)) == 500


async def test_a_channel_nobody_reads_does_not_grow_without_limit(tmp_path):
    layer = Relay(str(tmp_path), capacity=2)
    channel = await layer.new_channel()
    for number in range(5):
        await layer.send(channel, {"number": number})
    assert await take(layer, channel, 2) == [{"number": 0}, {"number": 1}]
    await layer.close()


async def test_nonsense_on_the_socket_is_ignored(web, tmp_path):
    channel = await web.new_channel()
    await web.group_add("live", channel)
    for data in (b"", b"\xff", b"[1]", b"{}", b'["live"]', b'[["a"], {}]'):
        relay.send_to(web.address, data, 1)
    await web.group_send("live", {"number": 1})
    assert await take(web, channel) == [{"number": 1}]


async def test_a_long_path_moves_the_socket_to_a_private_folder(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    deep = tmp_path / ("d" * 90)
    address = relay.address(str(deep))
    assert len(address) <= 107
    assert stat.S_IMODE(os.stat(os.path.dirname(address)).st_mode) == 0o700
    os.chmod(os.path.dirname(address), 0o777)
    with pytest.raises(PermissionError, match="is not a private folder of this user"):
        relay.address(str(deep))
