"""A started product with hosts and users, for tests that look at it through a browser."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.product import Product

MIB = 1 << 20
USERS = {"ada": "", "olga": "Operator", "vera": "Viewer"}  # an administrator, then by role
HOSTS: dict[str, float] = {
    "ams-01": 0,
    "ams-02": 8,
    "fra-01": 8,
    "slow-01": 0.5,
}  # MiB/s; the first one holds the source VM
SETTINGS = {
    "RASWEB_CHECK_INTERVAL": "2",
    "RASWEB_LEASE_SECONDS": "5",
    "RASWEB_RETRY_DELAYS": "1,1,1",
    "RASWEB_WORKERS": "4",
}
_USERS = """
import json
from django.conf import settings
from django.contrib.auth.models import Group, User
from django.test import Client
keys = {{}}
for name, role in {users!r}.items():
    user = User.objects.create_user(name, is_superuser=not role, is_staff=not role)
    user.groups.set(Group.objects.filter(name=role))
    browser = Client()
    browser.force_login(user)
    keys[name] = browser.cookies[settings.SESSION_COOKIE_NAME].value
print(json.dumps([settings.SESSION_COOKIE_NAME, keys]))
"""


class Site:
    """Hosts are folders below ``root``; orders that are not the test's subject are given on the command line."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "hosts"
        self.root.mkdir()
        env = {**SETTINGS, "RASWEB_ALLOWED_ROOTS": str(self.root)}
        self.product = Product(folder / "data", env)
        self._session_cookie = ""
        self._sessions: dict[str, str] = {}

    def start(self) -> Site:
        self.product.start()
        return self

    def furnish(self, hosts: dict[str, float]) -> Site:
        """Make the users, each with a session, and the hosts with their bandwidth in MiB/s."""
        made = self.product.order("shell", "-v0", "-c", _USERS.format(users=USERS))
        self._session_cookie, self._sessions = json.loads(made.stdout)
        self.order(*(["provider", "add", name, *self.options(name, speed)] for name, speed in hosts.items()))
        return self

    def options(self, name: str, speed: float) -> list[str]:
        """The options that add a host; MiB/s, 0 for no limit."""
        self.path(name).mkdir(exist_ok=True)
        return [
            *("--kind", "directory", "--set", f"path={self.path(name)}"),
            *("--bandwidth", str(int(speed * MIB))),
        ]

    def path(self, host: str) -> Path:
        return self.root / host

    def url(self, path: str = "/") -> str:
        return self.product.base_url + path

    def cookie(self, user: str) -> dict[str, str]:
        """What the browser of somebody who has signed in sends."""
        return {"name": self._session_cookie, "value": self._sessions[user], "url": self.url()}

    # What an administrator does on the hosts

    def put_vm(self, host: str, name: str = "win11-golden", size: int = 16) -> None:
        """A shut-off VM: one disk of ``size`` MiB, three quarters of it filled."""
        folder = self.path(host) / "vms" / name
        folder.mkdir(parents=True)
        (folder / "vm.json").write_text(json.dumps({"memory_mib": 4096, "vcpus": 2, "network": "default"}))
        with (folder / "disk0.raw").open("wb") as disk:
            disk.write(os.urandom(size * MIB * 3 // 4))
            disk.truncate(size * MIB)

    def change_working_copy(self, host: str, template: str) -> None:
        """What the guest's system would write while it runs."""
        (disk,) = (self.path(host) / "vms" / f"{template}-maintenance").glob("disk0.*")
        with disk.open("r+b") as image:
            image.write(os.urandom(4096))

    @contextmanager
    def without(self, host: str) -> Iterator[None]:
        """Meanwhile the host does not respond: its folder is somewhere else."""
        away = self.root / f".away-{host}"
        self.path(host).rename(away)
        try:
            yield
        finally:
            away.rename(self.path(host))

    def images(self, host: str) -> set[str]:
        return {file.name for file in (self.path(host) / "images").iterdir() if not file.name.startswith(".")}

    # Orders

    def template(self, name: str, source: str, *targets: str, **options: Any) -> str:
        """A distributed template, see ``creation``; returns its name."""
        self.order(*creation(name, source, *targets, **options))
        return name

    def order(self, *orders: list[str]) -> None:
        """Give orders one after the other."""
        for order in orders:
            self.product.order(*order)


def creation(
    name: str, source: str, *targets: str, guests: dict[str, int] | None = None, vm: str = "win11-golden"
) -> list[list[str]]:
    """The orders for a template, and for so many guest VMs of it on each host."""
    options = [word for target in targets for word in ("--target", target)]
    clones = [["--provider", host, "--count", str(count)] for host, count in (guests or {}).items()]
    return [
        ["template", "create", name, "--source", f"{source}:{vm}", *options, "--wait"],
        *(["guest", "create", name, *clone, "--wait"] for clone in clones),
    ]
