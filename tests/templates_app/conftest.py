"""Real hosts in folders, and an in-process worker that carries out what is due."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django_q.models import OrmQ

from providers_app import health
from providers_app.drivers import open_driver
from providers_app.drivers.errors import DriverError
from providers_app.models import Provider
from rasweb.processes import start_module
from templates_app import distribution, reconciler, tasks
from templates_app.creation import NewTemplate, create
from templates_app.models import DistributionTarget, Template
from templates_app.reconciler import Reconciler
from templates_app.transfer import process
from tests.product import children
from tests.templates_app.shelf import Shelf

SIZE = 1 << 20
BY = "test"
OK = ("Ready", "OK")
Drain = Callable[[], None]


class Hosts:
    """Providers that are folders below one allowed root."""

    def __init__(self, root: Path, settings: object) -> None:
        self.root = root
        settings.ALLOWED_ROOTS = [str(root)]  # type: ignore[attr-defined]  # pytest-django's settings are dynamic

    def path(self, provider: Provider) -> Path:
        return Path(provider.settings["path"])

    def add(self, name: str, kind: str = "directory", **limits: object) -> Provider:
        (self.root / name).mkdir()
        known = {"path": str(self.root / name), "networks": "", **({"vms": 0} if kind == "simulator" else {})}
        with_roots = {**known, "roots": [str(self.root)]}
        host_id = open_driver(kind, with_roots).register()
        provider = Provider.objects.create(name=name, kind=kind, settings=known, host_id=host_id, **limits)
        self.check(provider)
        return provider

    def check(self, *providers: Provider) -> None:
        """What a health check does, in this process."""
        for provider in providers:
            address = provider.address()
            try:
                with open_driver(address.kind, address.settings) as host:
                    health.record(provider, host.survey())
            except DriverError as error:
                health.record(provider, error)

    def vm(self, provider: Provider, name: str = "golden", disks: int = 1) -> list[bytes]:
        """A shut-off VM with data between holes; returns its disks' contents."""
        folder = self.path(provider) / "vms" / name
        folder.mkdir()
        (folder / "vm.json").write_text(json.dumps({"memory_mib": 2048, "vcpus": 2, "network": "default"}))
        contents = []
        for number in range(disks):
            content = os.urandom(200_000) + bytes(500_000) + os.urandom(SIZE - 700_000)
            with (folder / f"disk{number}.raw").open("wb") as disk:
                disk.write(content[:200_000])
                disk.seek(700_000)
                disk.write(content[700_000:])
            contents.append(content)
        self.check(provider)
        return contents

    def take_away(self, provider: Provider) -> None:
        self.path(provider).rename(self.root / f".gone-{provider.name}")

    def bring_back(self, provider: Provider) -> None:
        (self.root / f".gone-{provider.name}").rename(self.path(provider))

    def images(self, provider: Provider) -> dict[str, bytes]:
        folder = self.path(provider) / "images"
        return {file.name: file.read_bytes() for file in folder.iterdir() if not file.name.startswith(".")}

    def hidden(self, provider: Provider) -> list[str]:
        return sorted(
            file.name for file in (self.path(provider) / "images").iterdir() if file.name.startswith(".")
        )


@pytest.fixture
def hosts(db: None, tmp_path: Path, settings: object) -> Hosts:
    settings.DATA_DIR = tmp_path / "data"  # type: ignore[attr-defined]  # pytest-django's settings are dynamic
    (tmp_path / "hosts").mkdir()
    return Hosts(tmp_path / "hosts", settings)


@pytest.fixture
def drain(hosts: Hosts, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Work like a worker until nothing is due: reconcile, then carry out what lies in the queue."""
    monkeypatch.setattr(reconciler, "ASK_AGAIN_SECONDS", 0)

    def run(passes: int = 20) -> None:
        looking = Reconciler()
        for _ in range(passes):
            looking.run()
            if not OrmQ.objects.exists():
                return
            for message in list(OrmQ.objects.all()):
                task = message.task
                message.delete()
                getattr(tasks, task["func"].rpartition(".")[2])(*task["args"])
        raise AssertionError("work never came to an end")

    return run


@pytest.fixture(scope="session")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Shelf:
    return Shelf(tmp_path_factory.mktemp("shelf"))


@pytest.fixture
def three(request: pytest.FixtureRequest, tmp_path: Path, hosts: Hosts, shelf: Shelf) -> list[Provider]:
    """A source and two more hosts."""
    if "template" not in request.fixturenames or not shelf:
        return [hosts.add(name) for name in ("source", "left", "right")]
    shelf.put(tmp_path)
    found = list(Provider.objects.order_by("pk"))
    hosts.check(*found)
    return found


@pytest.fixture
def ordered(hosts: Hosts, three: list[Provider]) -> Template:
    """A template that was just ordered for three hosts; nothing is done yet."""
    hosts.vm(three[0])
    return create(NewTemplate("win11", three[0], "golden", targets=three[1:]), BY)


@pytest.fixture
def template(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    three: list[Provider],
    drain: Callable[[], None],
    shelf: Shelf,
) -> Template:
    """A template that is distributed to three hosts."""
    if not Template.objects.exists():
        request.getfixturevalue("ordered")
        drain()
        shelf.take(tmp_path)
    return Template.objects.get()


@pytest.fixture
def simulator(hosts: Hosts, template: Template, drain: Drain) -> Provider:
    """A host with faults on demand that holds the template too."""
    simulator = hosts.add("simulator", kind="simulator")
    distribution.add_providers(template, [simulator], BY)
    drain()
    return simulator


def target_on(template: Template, provider: Provider) -> DistributionTarget:
    return template.targets.select_related("provider", "template", "wanted_version").get(provider=provider)


def at_birth(patch: pytest.MonkeyPatch, act: Callable[[subprocess.Popen[bytes]], object]) -> None:
    """Let ``act`` meet each engine that is started from now on before it has got its job."""

    def start(module: str, **options: Any) -> subprocess.Popen[bytes]:
        born = start_module(module, **options)
        act(born)
        return born

    patch.setattr(process, "start_module", start)


def engine() -> int:
    """The engine that this process runs now, 0 while there is none."""
    return next((pid for pid in children(os.getpid()) if _is_engine(pid)), 0)


def _is_engine(pid: int) -> bool:
    try:
        return b"templates_app.transfer" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def words(template: Template) -> dict[str, tuple[str, str]]:
    """State and Progress of each target."""
    return {
        target.provider.name: (str(target.state), str(target.progress))
        for target in template.targets.select_related("provider")
    }
