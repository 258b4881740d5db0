"""The web process: Daphne on a socket that its parent listens on, in a fork of a program that is loaded already."""

from __future__ import annotations

import logging
import socket
import sys

from django.conf import settings

from rasweb.settings import served

PING_SECONDS, PONG_SECONDS = 10, 20


def serve(listener: socket.socket, host: str) -> None:
    """Serve pages and sockets until told to end. ``host`` is the name or address that was asked for."""
    settings.ORIGINS, settings.ALLOWED_HOSTS = served(host, listener.getsockname()[1])
    settings.CSRF_TRUSTED_ORIGINS = settings.ORIGINS
    from daphne.server import Server

    from rasweb import bodies
    from rasweb.asgi import application  # not before: what it is made of reads the settings

    bodies.limit()
    logging.basicConfig(level=logging.WARNING)
    server = Server(
        application,
        endpoints=[f"fd:fileno={listener.fileno()}"],
        ping_interval=PING_SECONDS,
        ping_timeout=PONG_SECONDS,
        websocket_timeout=-1,
        server_name="",
        verbosity=0,
    )
    server.run()
    sys.exit(1 if server.abort_start else 0)
