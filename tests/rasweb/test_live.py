import json
import socket

import pytest
from django.db import transaction

from rasweb import live, relay

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    monkeypatch.setattr(live, "_silent_until", 0.0)


@pytest.fixture
def inbox(settings, tmp_path):
    """Where the web process would listen."""
    settings.CHANNEL_LAYERS = {
        "default": {"BACKEND": "rasweb.relay.Relay", "CONFIG": {"folder": str(tmp_path)}}
    }
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as inbox:
        inbox.bind(relay.address(str(tmp_path)))
        inbox.listen(8)
        inbox.setblocking(False)
        yield inbox


def heard(inbox: socket.socket) -> list:
    found = []
    while True:
        try:
            sender, _ = inbox.accept()
        except BlockingIOError:
            return found
        with sender:
            found.append(json.loads(sender.recv(65536)))


def test_a_change_is_told_after_the_commit(inbox):
    with transaction.atomic():
        live.changed("template", 1, "templates", "template:1")
        assert heard(inbox) == []
    topics = {"templates": [["template", 1]], "template:1": [["template", 1]]}
    assert heard(inbox) == [["live", {"type": "poke", "topics": topics}]]


def test_what_was_rolled_back_is_not_told(inbox):
    def fail() -> None:
        with transaction.atomic():
            live.changed("template", 1, "templates")
            raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        fail()
    assert heard(inbox) == []


def test_a_web_process_that_hangs_costs_work_a_moment_once(inbox, caplog, monkeypatch):
    monkeypatch.setattr(live, "PAUSE_SECONDS", 60.0)  # however long this takes
    for pk in range(200):
        live.changed("template", pk, "templates")
    assert len(caplog.records) == 1  # each that waited in vain tells so
    assert len(heard(inbox)) < 20


def test_a_broken_layer_never_fails_work(settings, tmp_path, caplog):
    settings.CHANNEL_LAYERS = {
        "default": {
            "BACKEND": "channels_redis.pubsub.RedisPubSubChannelLayer",
            "CONFIG": {"hosts": [f"unix://{tmp_path}/none.sock"]},
        }
    }
    for pk in range(3):
        live.changed("template", pk, "templates")
    assert len(caplog.records) == 1
    assert "A live update was not sent" in caplog.text


def test_without_a_layer_nothing_is_told(settings):
    settings.CHANNEL_LAYERS = {}
    live.changed("template", 1, "templates")
