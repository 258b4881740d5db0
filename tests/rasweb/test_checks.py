import os

import pytest

from rasweb import checks


def ids(messages) -> list[str]:
    return [message.id for message in messages]


def test_an_allowed_root_that_is_a_file_is_an_error(settings, tmp_path):
    (tmp_path / "file").touch()
    settings.ALLOWED_ROOTS = [str(tmp_path), str(tmp_path / "new"), str(tmp_path / "file")]
    assert ids(checks.folders()) == ["rasweb.E002"]


def test_a_key_that_others_can_read_is_a_warning(settings, tmp_path):
    settings.DATA_DIR = tmp_path
    key = tmp_path / "field_keys"
    key.touch(mode=0o600)
    assert ids(checks.keys()) == []
    key.chmod(0o640)
    assert ids(checks.keys()) == ["rasweb.W003"]


def test_a_silent_redis_is_a_warning_that_names_the_setting(settings, tmp_path):
    settings.REDIS_URL = f"unix://{tmp_path}/none.sock"
    (message,) = checks.channel_layer()
    assert (message.id, message.hint) == ("rasweb.W004", "Check RASWEB_REDIS_URL.")


@pytest.mark.parametrize("change", [{"scheduler": True}, {"retry": 1}, {"orm": "other"}])
def test_a_queue_that_could_repeat_or_run_anything_is_an_error(settings, change):
    assert ids(checks.queue()) == []
    settings.Q_CLUSTER = {**settings.Q_CLUSTER, **change}
    assert ids(checks.queue()) == ["rasweb.E005"]


def test_a_misspelt_setting_is_named_with_the_right_one(monkeypatch):
    monkeypatch.setenv("RASWEB_SECRET_KEY_FILE", os.devnull)
    monkeypatch.setenv("RASWEB_LEASE_SECOND", "5")
    (message,) = checks.names()
    assert message.hint == "Did you mean RASWEB_LEASE_SECONDS?"
