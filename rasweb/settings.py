"""All settings. Each is read from the environment; a wrong one stops the start with one sentence.

``docs/settings.md`` lists them for the administrator.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import environ
from csp.constants import NONE, SELF
from django.core.exceptions import ImproperlyConfigured

from rasweb import keys

BASE_DIR = Path(__file__).resolve().parent.parent

SETTING_NAMES: set[str] = set()  # every name asked for below

_env = environ.FileAwareEnv()
_DAY = 24 * 60 * 60
_WORDS_FOR_BOOL = {"yes": True, "true": True, "1": True, "no": False, "false": False, "0": False}


def _read(name: str, cast: Callable[[str], Any], default: Any, wanted: str) -> Any:
    """The setting ``name``, made by ``cast``, which raises ValueError for what is not ``wanted``."""
    SETTING_NAMES.add(name)
    try:
        return _env.get_value(name, cast=cast, default=default)
    except (ValueError, OSError, ImproperlyConfigured):
        raise ImproperlyConfigured(f"{name} must be {wanted}.") from None


def _number(least: int, most: int = 2**63 - 1) -> Callable[[str], int]:
    def cast(text: str) -> int:
        if not least <= int(text) <= most:
            raise ValueError(text)
        return int(text)

    return cast


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(_number(0)(part) for part in text.split(",") if part.strip())


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _yes_or_no(text: str) -> bool:
    if text.lower() not in _WORDS_FOR_BOOL:
        raise ValueError(text)
    return _WORDS_FOR_BOOL[text.lower()]


def _path(text: str) -> Path:
    if not text:
        raise ValueError
    return Path(text).absolute()


def _paths(text: str) -> list[str]:
    return [str(_path(part)) for part in text.split(os.pathsep)]


def _origins(text: str) -> list[str]:
    origins = [word.rstrip("/") for word in _words(text)]
    for origin in origins:
        parts = urlsplit(origin)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.path or parts.query:
            raise ValueError(origin)
    return origins


def _database(url: str) -> dict[str, Any]:
    database: dict[str, Any] = _env.db_url_config(url)
    kind = database.get("ENGINE", "").rsplit(".", 1)[-1]
    if kind not in ("sqlite3", "postgresql") or database["NAME"] in ("", ":memory:"):
        raise ValueError
    return database


def _redis(url: str) -> str:
    if url and urlsplit(url).scheme not in ("redis", "rediss", "unix"):
        raise ValueError
    return url


# ── Where everything lies, and the keys ─────────────────────────────────────────────────────────────────────────

DATA_DIR: Path = _read("RASWEB_DATA_DIR", _path, BASE_DIR / "var", "the path of a folder")
LOG_DIR = DATA_DIR / "logs"
try:
    DATA_DIR.mkdir(mode=0o700, parents=True, exist_ok=True)
    LOG_DIR.mkdir(exist_ok=True)
    SECRET_KEY: str = _read("RASWEB_SECRET_KEY", keys.secret, "", "a random text of at least 50 characters")
    SECRET_KEY = SECRET_KEY or keys.kept(DATA_DIR / "secret_key", keys.new_secret)
    FIELD_KEYS: list[str] = _read(
        "RASWEB_FIELD_KEYS", keys.fernet_list, [], f"{keys.FERNET_LIST}, newest first"
    )
    FIELD_KEYS = FIELD_KEYS or keys.fernet_list(keys.kept(DATA_DIR / "field_keys", keys.new_fernet))
except OSError as error:
    raise ImproperlyConfigured(f"RASWEB_DATA_DIR: {error.filename}: {error.strerror}.") from None
except ValueError:
    raise ImproperlyConfigured(f"{DATA_DIR / 'field_keys'} must hold {keys.FERNET_LIST}.") from None

# ── What the product does ───────────────────────────────────────────────────────────────────────────────────────

_SECONDS = "a whole number of seconds, at least 1"
ALLOWED_ROOTS: list[str] = _read(
    "RASWEB_ALLOWED_ROOTS", _paths, [str(DATA_DIR / "hosts")], f"paths of folders, parted by '{os.pathsep}'"
)
ALLOWED_SOCKETS: list[str] = _read(
    "RASWEB_ALLOWED_SOCKETS",
    _paths,
    ["/run/libvirt", "/var/run/libvirt"],
    f"paths of folders, parted by '{os.pathsep}'",
)
ALLOW_PLAIN_TCP: bool = _read("RASWEB_ALLOW_PLAIN_TCP", _yes_or_no, False, "yes or no")
CHECK_INTERVAL: int = _read("RASWEB_CHECK_INTERVAL", _number(1), 30, _SECONDS)
LEASE_SECONDS: int = _read("RASWEB_LEASE_SECONDS", _number(1), 60, _SECONDS)
STALL_SECONDS: int = _read("RASWEB_STALL_SECONDS", _number(1), 120, _SECONDS)
RETRY_DELAYS: tuple[int, ...] = _read(
    "RASWEB_RETRY_DELAYS", _numbers, (30, 120, 600), "whole numbers of seconds, parted by commas"
)
BANDWIDTH_LIMIT: int = _read(
    "RASWEB_BANDWIDTH_LIMIT", _number(0), 0, "a whole number of bytes per second, 0 for no limit"
)
SCRUB_DAYS: int = _read("RASWEB_SCRUB_DAYS", _number(0, 3650), 30, "a whole number of days, 0 for never")
SCRUB_BANDWIDTH: int = _read(
    "RASWEB_SCRUB_BANDWIDTH", _number(0), 50 << 20, "a whole number of bytes per second, 0 for no limit"
)
SCRUB_SECONDS: int = _read("RASWEB_SCRUB_SECONDS", _number(1), 600, _SECONDS)
WORKERS: int = _read("RASWEB_WORKERS", _number(1, 100), 8, "a whole number from 1 to 100")
LOOPS: tuple[
    tuple[str, float], ...
] = (  # what a worker set calls by itself, and the seconds between two calls
    ("templates_app.tasks.reconcile", 1.0),
    ("providers_app.health.sweep", 1.0),
    ("providers_app.hints.follow", 0.5),
    ("rasweb.workers.tidy", 3600.0),
)
CANARY_SECONDS = 60.0  # between two tasks that only show that tasks are done
HANG_SECONDS = 90.0  # a worker set that could have done the task and did not, for so long, is ended
DRAIN_SECONDS = 10.0  # what running work has to put down what it holds when a worker set is told to end

# ── Address ─────────────────────────────────────────────────────────────────────────────────────────────────────

HOST: str = _read("RASWEB_HOST", str, "127.0.0.1", "a name or address to listen on")
PORT: int = _read("RASWEB_PORT", _number(0, 65535), 8000, "a port number from 0 to 65535")


def served(host: str, port: int) -> tuple[list[str], list[str]]:
    """``ORIGINS`` and ``ALLOWED_HOSTS`` of pages that are served there; the environment may know better."""
    names = ["localhost", "127.0.0.1", "[::1]"]
    names += [host] if host not in (*names, "0.0.0.0", "::", "::1") else []
    origins: list[str] = _read(
        "RASWEB_ORIGINS",
        _origins,
        [f"http://{name}:{port}" for name in names],
        "addresses such as https://vdi.example.com or http://10.0.0.5:8000, parted by commas",
    )
    hosts: list[str] = _read(
        "RASWEB_ALLOWED_HOSTS",
        _words,
        [*names, *(str(urlsplit(origin).hostname) for origin in origins)],
        "names of hosts, parted by commas",
    )
    return origins, hosts


ORIGINS, ALLOWED_HOSTS = served(HOST, PORT)
CSRF_TRUSTED_ORIGINS = ORIGINS
DEBUG: bool = _read("RASWEB_DEBUG", _yes_or_no, False, "yes or no")

# ── Application ─────────────────────────────────────────────────────────────────────────────────────────────────

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.humanize",
    "django.contrib.messages",
    "django.contrib.sessions",
    "django.contrib.staticfiles",
    "channels",
    "csp",
    "django_htmx",
    "django_q",
    "template_partials",
    "providers_app",
    "templates_app",
    "rasweb",
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "csp.middleware.CSPMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.auth.middleware.LoginRequiredMiddleware",
    "rasweb.access.Gate",
    "rasweb.middleware.no_store",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "django_htmx.middleware.HtmxMiddleware",
    "rasweb.middleware.Busy",
]
ROOT_URLCONF = "rasweb.urls"
ASGI_APPLICATION = "rasweb.asgi.application"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "rasweb" / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
                "templates_app.pages.chrome",
            ],
        },
    }
]
FORM_RENDERER = "rasweb.forms.Renderer"
LANGUAGE_CODE = "en"
TIME_ZONE = "UTC"
USE_TZ = True
USE_I18N = True

STATIC_URL = "/static/"
STATIC_ROOT = DATA_DIR / "static"
STATICFILES_DIRS = [BASE_DIR / "static"]
_STATIC_STORAGE = (
    "django.contrib.staticfiles.storage.StaticFilesStorage"
    if DEBUG
    else "whitenoise.storage.CompressedManifestStaticFilesStorage"
)
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {"BACKEND": _STATIC_STORAGE},
}
WHITENOISE_USE_FINDERS = DEBUG
# WhiteNoise hands small files to the server in one piece; Django warns of that for each of them.
warnings.filterwarnings("ignore", message="StreamingHttpResponse must consume synchronous iterators")

# ── Database, queue, live updates ───────────────────────────────────────────────────────────────────────────────

DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
_database_settings: dict[str, Any] = _read(
    "RASWEB_DATABASE_URL",
    _database,
    {"ENGINE": "django.db.backends.sqlite3", "NAME": str(DATA_DIR / "rasweb.sqlite3")},
    "like sqlite:////path/of/file or postgres://user:password@host:5432/name",
)
EMBEDDED_DATABASE: bool = _database_settings["ENGINE"].endswith("sqlite3")
if EMBEDDED_DATABASE:
    _database_settings["OPTIONS"] = {
        "transaction_mode": "IMMEDIATE",
        "timeout": 20,
        "init_command": (
            "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; PRAGMA mmap_size=134217728; "
            "PRAGMA journal_size_limit=27103364; PRAGMA cache_size=2000"
        ),
    }
    _database_settings["TEST"] = {
        "NAME": str(DATA_DIR / "test.sqlite3")
    }  # threads share it as they do in use
else:
    _database_settings.setdefault("OPTIONS", {}).setdefault("connect_timeout", 10)
    _database_settings["CONN_HEALTH_CHECKS"] = True
DATABASES = {"default": {**_database_settings, "CONN_MAX_AGE": 0}}

REDIS_URL: str = _read("RASWEB_REDIS_URL", _redis, "", "like redis://host:6379/0, rediss:// or unix:///path")
CHANNEL_LAYERS: dict[str, dict[str, Any]] = {
    "default": {
        "BACKEND": "channels_redis.pubsub.RedisPubSubChannelLayer",
        "CONFIG": {"hosts": [REDIS_URL], "prefix": "rasweb"},
    }
    if REDIS_URL
    else {"BACKEND": "rasweb.relay.Relay", "CONFIG": {"folder": str(DATA_DIR)}}
}
# Holds how often somebody tried to log in; where there are several web processes there is Redis.
CACHES: dict[str, dict[str, Any]] = {
    "default": {
        "BACKEND": "django.core.cache.backends.redis.RedisCache",
        "LOCATION": REDIS_URL,
        "KEY_PREFIX": "rasweb",
        "OPTIONS": {"socket_connect_timeout": 2, "socket_timeout": 2},
    }
    if REDIS_URL
    else {
        "BACKEND": "django.core.cache.backends.locmem.LocMemCache",
        "OPTIONS": {"MAX_ENTRIES": 100_000},
    }
}
Q_CLUSTER: dict[str, Any] = {
    "name": "rasweb",
    "orm": "default",
    "broker_class": "rasweb.queue.Broker",
    "cache": "unused",
    "workers": WORKERS,
    "queue_limit": 1,  # what waits in a worker's memory is lost with it
    "bulk": 1,
    "poll": 0.3,
    "recycle": 10**9,  # a worker that ends is a fault, always
    "timeout": _DAY,
    "retry": 7 * _DAY,  # the rows decide about trying again, not the queue
    "max_attempts": 1,
    "ack_failures": True,
    "catch_up": False,
    "scheduler": False,  # schedule rows would run any name; loops are in LOOPS
    "save_limit": -1,  # failures only
    "log_level": "WARNING",
}

# ── Security ────────────────────────────────────────────────────────────────────────────────────────────────────

LOGIN_URL = "login"
LOGIN_REDIRECT_URL = "/"
LOGOUT_REDIRECT_URL = "login"
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}"}
    for name in (
        "UserAttributeSimilarityValidator",
        "MinimumLengthValidator",
        "CommonPasswordValidator",
        "NumericPasswordValidator",
    )
]
CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": [NONE],
        "script-src": [SELF],
        "style-src": [SELF],
        "img-src": [SELF, "data:"],
        "font-src": [SELF],
        "connect-src": [SELF],
        "form-action": [SELF],
        "base-uri": [NONE],
        "frame-ancestors": [NONE],
    }
}
X_FRAME_OPTIONS = "DENY"
SESSION_COOKIE_NAME = "rasweb_session"
CSRF_COOKIE_NAME = "rasweb_csrf"
CSRF_COOKIE_HTTPONLY = True

_HTTPS = all(origin.startswith("https://") for origin in ORIGINS)
# security.W005 and W021: whether other names below the site's domain speak https is not ours to decide.
SILENCED_SYSTEM_CHECKS = ["security.W005", "security.W021"]
if _HTTPS:
    SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
    SECURE_SSL_REDIRECT = True
    SECURE_REDIRECT_EXEMPT = [r"^healthz$", r"^readyz$"]
    SECURE_HSTS_SECONDS = 365 * _DAY
    SESSION_COOKIE_SECURE = True
    CSRF_COOKIE_SECURE = True
else:
    # Plain http is the embedded default on loopback: no cookie or redirect could insist on https there.
    SILENCED_SYSTEM_CHECKS += ["security.W004", "security.W008", "security.W012", "security.W016"]

# ── Logs ────────────────────────────────────────────────────────────────────────────────────────────────────────

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"plain": {"()": "rasweb.logs.Formatter"}},
    "handlers": {
        "stderr": {"class": "logging.StreamHandler", "formatter": "plain"},
        "file": {
            "class": "logging.handlers.WatchedFileHandler",
            "filename": str(LOG_DIR / "rasweb.log"),
            "formatter": "plain",
            "delay": True,
        },
    },
    "root": {"handlers": ["stderr", "file"], "level": "INFO"},
    "loggers": {
        "django.channels.server": {"level": "WARNING"},
        "daphne": {"level": "WARNING"},
        "django-q": {"level": "WARNING"},
    },
}
