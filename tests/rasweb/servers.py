"""Servers that a larger installation uses, each as a process of its own on a unix socket."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from glob import glob
from pathlib import Path

from channels_redis.pubsub import RedisPubSubChannelLayer

from rasweb import processes
from tests.product import wait_for


class RedisServer:
    """A redis-server on a unix socket below ``folder``."""

    def __init__(self, folder: Path) -> None:
        self.socket = folder / "redis.sock"
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"unix://{self.socket}"

    def layer(self) -> RedisPubSubChannelLayer:
        return RedisPubSubChannelLayer(hosts=[self.url], prefix="rasweb")

    def start(self) -> RedisServer:
        argv = [
            "redis-server",
            "--port",
            "0",
            "--unixsocket",
            str(self.socket),
            "--save",
            "",
            "--appendonly",
            "no",
        ]
        self.process = processes.start([*argv, "--dir", str(self.socket.parent)], stdout=subprocess.DEVNULL)
        wait_for(self.socket.exists, 10, "redis-server")
        return self

    def stop(self) -> None:
        if self.process is not None:
            processes.stop(self.process, 5)


class PostgresServer:
    """A PostgreSQL server in a folder of its own. It refuses to run as root, so root starts it as ``postgres``."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="rasweb-pg-"))
        self.process: subprocess.Popen[bytes] | None = None
        self._as: list[str] = ["setpriv", "--pdeathsig=SIGKILL"]
        if os.getuid() == 0:
            shutil.chown(self.folder, "postgres", "postgres")
            self._as += ["--reuid=postgres", "--regid=postgres", "--clear-groups"]

    @property
    def url(self) -> str:
        return f"postgres://postgres@/{self.folder}/postgres"

    def start(self) -> PostgresServer:
        data = str(self.folder / "data")
        initdb = [
            self._program("initdb"),
            "--auth=trust",
            "--username=postgres",
            "--no-sync",
            "--pgdata",
            data,
        ]
        subprocess.run(
            [*self._as, *initdb], stdout=subprocess.DEVNULL, cwd=self.folder, check=True, timeout=60
        )
        options = ["-k", str(self.folder), "-c", "listen_addresses=", "-c", "fsync=off"]
        argv = [*self._as, self._program("postgres"), "-D", data, *options]
        self.process = subprocess.Popen(
            argv, stderr=subprocess.DEVNULL, cwd=self.folder, start_new_session=True
        )
        ready = [self._program("pg_isready"), "-q", "-h", str(self.folder)]
        wait_for(lambda: subprocess.run(ready, check=False).returncode == 0, 20, "PostgreSQL")
        return self

    def stop(self) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGINT)
            self.process.wait(20)
        shutil.rmtree(self.folder)

    @staticmethod
    def _program(name: str) -> str:
        path = os.pathsep.join([os.environ["PATH"], *sorted(glob("/usr/lib/postgresql/*/bin"), reverse=True)])
        found = shutil.which(name, path=path)
        assert found, f"{name} of PostgreSQL is not installed"
        return found


def publish_elsewhere(folder: Path, group: str, times: int = 1) -> subprocess.Popen[bytes]:
    """Another process that sends ``times`` numbered messages through the relay of ``folder``."""
    code = (
        "from rasweb.relay import Relay\n"
        f"layer = Relay({str(folder)!r})\n"
        f"print(sum(layer.publish({group!r}, {{'number': n}}) for n in range({times})))"
    )
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
