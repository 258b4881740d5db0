"""The web process: pages by Django, live updates by websocket."""

from __future__ import annotations

import os

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "rasweb.settings")

from django.conf import settings
from django.core.asgi import get_asgi_application

from rasweb.loading import loading

with loading():
    http = get_asgi_application()

from channels.routing import ProtocolTypeRouter, URLRouter
from channels.security.websocket import OriginValidator
from django.urls import path

from rasweb.consumers import LiveConsumer

WEB_LOCK_SECONDS = 5  # a click that meets a held lock is answered in time

if settings.EMBEDDED_DATABASE:
    settings.DATABASES["default"]["OPTIONS"]["timeout"] = WEB_LOCK_SECONDS

sockets = [path("ws/", LiveConsumer())]  # type: ignore[arg-type]  # an ASGI application, not a view
application = ProtocolTypeRouter(
    {
        "http": http,
        "websocket": OriginValidator(URLRouter(sockets), settings.ORIGINS),
    }
)
