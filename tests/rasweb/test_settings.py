import os
import re
import subprocess
import sys
from importlib.util import module_from_spec, spec_from_file_location
from types import ModuleType

import pytest
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

from tests.product import ROOT

DOCUMENT = ROOT / "docs" / "settings.md"


@pytest.fixture
def read(tmp_path, monkeypatch):
    """The settings as a start with these environment variables would read them."""

    def read(**environment: str) -> ModuleType:
        for name in settings.SETTING_NAMES:
            monkeypatch.delenv(name, raising=False)
        for name, value in {"RASWEB_DATA_DIR": str(tmp_path / "data"), **environment}.items():
            monkeypatch.setenv(name, value)
        spec = spec_from_file_location("settings_read_afresh", ROOT / "rasweb" / "settings.py")
        module = module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return read


def test_the_table_and_the_code_name_the_same_settings():
    documented = set(re.findall(r"^\| `(RASWEB_\w+)`", DOCUMENT.read_text(), re.MULTILINE))
    assert documented == settings.SETTING_NAMES


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("RASWEB_PORT", "70000", "must be a port number from 0 to 65535."),
        ("RASWEB_CHECK_INTERVAL", "0", "must be a whole number of seconds, at least 1."),
        ("RASWEB_LEASE_SECONDS", "soon", "must be a whole number of seconds, at least 1."),
        ("RASWEB_RETRY_DELAYS", "30,-1", "must be whole numbers of seconds, parted by commas."),
        ("RASWEB_BANDWIDTH_LIMIT", "1MB", "must be a whole number of bytes per second, 0 for no limit."),
        ("RASWEB_WORKERS", "0", "must be a whole number from 1 to 100."),
        ("RASWEB_DEBUG", "perhaps", "must be yes or no."),
        ("RASWEB_ORIGINS", "vdi.example.com", "must be addresses such as https://vdi.example.com"),
        (
            "RASWEB_ORIGINS",
            "https://vdi.example.com/path",
            "must be addresses such as https://vdi.example.com",
        ),
        (
            "RASWEB_DATABASE_URL",
            "mysql://root@db/rasweb",
            "must be like sqlite:////path/of/file or postgres://",
        ),
        ("RASWEB_DATABASE_URL", "sqlite://", "must be like sqlite:////path/of/file or postgres://"),
        ("RASWEB_REDIS_URL", "localhost:6379", "must be like redis://host:6379/0"),
        ("RASWEB_SECRET_KEY", "short", "must be a random text of at least 50 characters."),
        ("RASWEB_FIELD_KEYS", "bm90IGEga2V5", "must be one or more keys of 32 bytes in URL-safe base64"),
        ("RASWEB_SECRET_KEY_FILE", "/no/such/file", "must be a random text"),
    ],
)
def test_a_wrong_setting_is_one_sentence(read, name, value, sentence):
    with pytest.raises(ImproperlyConfigured) as wrong:
        read(**{name: value})
    assert str(wrong.value).startswith(f"{name.removesuffix('_FILE')} {sentence}")
    assert str(wrong.value).endswith(".")


def test_a_data_folder_that_can_not_be_made_is_one_sentence(read, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(
        ImproperlyConfigured, match=rf"^RASWEB_DATA_DIR: {tmp_path}/file/data: Not a directory.$"
    ):
        read(RASWEB_DATA_DIR=str(tmp_path / "file" / "data"))


def test_keys_are_made_once_and_are_for_the_owner_only(read, tmp_path):
    first, second = read(), read()
    assert (first.SECRET_KEY, first.FIELD_KEYS) == (second.SECRET_KEY, second.FIELD_KEYS)
    for name in ("secret_key", "field_keys"):
        assert (tmp_path / "data" / name).stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "data").stat().st_mode & 0o777 == 0o700


def test_a_damaged_key_file_is_one_sentence(read, tmp_path):
    read()
    (tmp_path / "data" / "field_keys").write_text("damaged")
    with pytest.raises(ImproperlyConfigured, match="field_keys must hold one or more keys of 32 bytes"):
        read()


def test_origins_follow_the_address(read):
    found = read(RASWEB_HOST="10.0.0.5", RASWEB_PORT="81").ORIGINS
    assert {"http://10.0.0.5:81", "http://localhost:81"} <= set(found)


def test_https_everywhere_asks_for_secure_cookies(read):
    found = read(RASWEB_ORIGINS="https://vdi.example.com")
    assert (found.SESSION_COOKIE_SECURE, found.ALLOWED_HOSTS[-1]) == (True, "vdi.example.com")


def test_postgresql_is_read_with_its_limits(read):
    database = read(RASWEB_DATABASE_URL="postgres://ras:p%40ss@db:5433/rasweb").DATABASES["default"]
    assert database.items() >= {"PASSWORD": "p@ss", "PORT": 5433, "OPTIONS": {"connect_timeout": 10}}.items()


@pytest.mark.parametrize("origins", ["http://10.0.0.5:8000", "https://vdi.example.com"])
def test_the_deployment_check_has_nothing_to_say(tmp_path, origins):
    env = {"PATH": os.environ["PATH"], "RASWEB_DATA_DIR": str(tmp_path / "data"), "RASWEB_ORIGINS": origins}
    result = subprocess.run(
        [sys.executable, "manage.py", "check", "--deploy", "--fail-level", "INFO"],
        env=env, cwd=ROOT, text=True, capture_output=True, timeout=60, check=False,
    )  # fmt: skip
    assert (result.returncode, result.stderr) == (0, "")
