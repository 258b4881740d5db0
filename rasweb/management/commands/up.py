"""The whole product under one supervisor: web and workers, on this machine."""

from __future__ import annotations

import http.client
import os
import resource
import socket
import sys
import time
from argparse import ArgumentParser
from typing import Any

from django.conf import settings
from django.core.management import call_command
from django.core.management.base import BaseCommand
from django.db import DatabaseError, connections

from rasweb import assets, setup, status, web, workers
from rasweb.refusals import Refusal
from rasweb.supervisor import AlreadyRunning, Child, Lock, Supervisor, rotate

LOG_BYTES = 20 * 1024 * 1024
WEB_GRACE = 5.0
OPEN_FILES = 65536


class Command(BaseCommand):
    help = "Start web and workers, and keep them running until Ctrl-C or SIGTERM."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--host", default=settings.HOST, help="name or address to listen on")
        parser.add_argument("--port", type=int, default=settings.PORT, help="port; 0 takes a free one")
        parser.add_argument(
            "--no-workers", action="store_true", help="web only; run manage.py worker yourself"
        )

    def handle(self, *args: Any, host: str, port: int, no_workers: bool, **options: Any) -> None:
        try:
            self._up(host, port, no_workers)
        except Refusal as refusal:
            self.stderr.write(str(refusal))
            sys.exit(1)

    def _up(self, host: str, port: int, no_workers: bool) -> None:
        lock = _lock()
        listener = _listen(host, port)
        address = f"http://{_in_address(host)}:{listener.getsockname()[1]}"
        lock.write(f"process {os.getpid()}, {address}")
        _prepare_database()
        assets.collect()
        _allow_open_files()
        children = [_web(lock, listener, host)] + ([] if no_workers else [_workers(lock, listener)])
        connections.close_all()
        if host in ("0.0.0.0", "::") and "RASWEB_ORIGINS" not in os.environ:
            self.stdout.write(
                f"Browsers elsewhere need RASWEB_ORIGINS, such as http://{socket.getfqdn()}:{port}."
            )
        self.stdout.write(f"rasweb is starting on {address}/ and keeps its data in {settings.DATA_DIR}")
        Supervisor(children, Greeting(self, address, listener)).run()
        self.stdout.write("rasweb has stopped.")


class Greeting:
    """Prints the address when pages are served; afterwards keeps the log file small."""

    def __init__(self, command: BaseCommand, address: str, listener: socket.socket) -> None:
        self._command = command
        self._address = address
        self._listener = listener
        self._greeted = False
        self._rotated = 0.0

    def __call__(self) -> None:
        if not self._greeted and _serves(self._listener):
            self._greeted = True
            self._greet()
        if time.monotonic() - self._rotated > 60:
            self._rotated = time.monotonic()
            rotate(settings.LOG_DIR / "rasweb.log", LOG_BYTES)

    def _greet(self) -> None:
        link = setup.link(self._address)
        connections.close_all()
        lines = [f"rasweb is ready: {self._address}/"]
        if link:
            lines.append(f"Create the first administrator here (works once, for a day): {link}")
        lines.append("Press Ctrl-C to stop.")
        self._command.stdout.write("\n".join(lines))  # at once: who waits for the first line has all of them


def _lock() -> Lock:
    try:
        return Lock(settings.DATA_DIR / "up.lock")
    except AlreadyRunning as other:
        raise Refusal(
            f"rasweb already runs on this data folder ({other.holder}).",
            action="Stop it first, or set another RASWEB_DATA_DIR.",
        ) from None


def _listen(host: str, port: int) -> socket.socket:
    """The listening socket is ours: visitors wait, and are not turned away, while the web process is replaced."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=1024)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise Refusal(
            f"Can not listen on {host}, port {port}: {reason}. Choose with --host and --port."
        ) from None


def _allow_open_files() -> None:
    """Each browser is an open socket of the web process, and the usual limit is for a thousand files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))


def _in_address(host: str) -> str:
    host = {"0.0.0.0": "localhost", "::": "localhost"}.get(host, host)  # compared, not bound
    return f"[{host}]" if ":" in host else host


def _prepare_database() -> None:
    try:
        if settings.EMBEDDED_DATABASE:
            call_command("migrate", interactive=False, verbosity=0)
        elif status.unapplied_migrations():
            raise Refusal("The database needs an update.", action="Run manage.py migrate, then start again.")
    except DatabaseError as error:
        raise Refusal(f"The database can not be used: {str(error).strip()}") from None


def _web(lock: Lock, listener: socket.socket, host: str) -> Child:
    def run() -> None:
        lock.close()
        web.serve(listener, host)

    return Child("rasweb web", run, WEB_GRACE)


def _workers(lock: Lock, listener: socket.socket) -> Child:
    def run() -> None:
        lock.close()
        listener.close()
        sys.exit(workers.run())

    return Child("rasweb workers", run, settings.DRAIN_SECONDS + 4)


def _serves(listener: socket.socket) -> bool:
    host, port = listener.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # compared, not bound
    connection = http.client.HTTPConnection(host, port, timeout=1)
    try:
        connection.request("GET", "/healthz", headers={"Host": "localhost"})
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
