"""The really started product with hosts of the lab registered in it: orders, what they answer, and what is there."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.faults.bench import SHORT
from tests.lab.bench import LibvirtBench
from tests.product import Product, wait_for

SETTLED_SECONDS = 180.0  # never reached on a machine that is not overloaded
ORDER_PAUSE = 0.2  # an order costs as much processor time as a page
_HISTORY = """
from templates_app.models import Event
for event in Event.objects.filter(to_phase="installed", note__startswith="Version {version}").order_by("id"):
    print(f"{{event.provider}}: {{event.note}}")
"""


class Site:
    """Libvirt hosts by name, registered in a started product. The first one is where source VMs are."""

    def __init__(self, data_dir: Path, benches: Mapping[str, LibvirtBench]) -> None:
        sockets = os.pathsep.join(sorted({str(bench.host.base) for bench in benches.values()}))
        self.product = Product(data_dir, {**SHORT, "RASWEB_ALLOWED_SOCKETS": sockets})
        self.benches = benches
        self.home = next(iter(benches))

    def start(self) -> Site:
        self.product.start()
        for name, bench in self.benches.items():
            parts = {
                "transport": "local",
                "socket": bench.host.socket,
                "pool": bench.pool,
                "shutdown_seconds": 0,
            }
            words = [word for part, value in parts.items() for word in ("--set", f"{part}={value}")]
            self.product.order("provider", "add", name, "--kind", "libvirt", *words)
        return self

    # Orders

    def run(self, *words: str) -> Any:
        return json.loads(self.product.order(*words, "--json").stdout)

    def tried(self, *words: str) -> Any:
        """The answer to an order that does not succeed: the status as it is then, or the error."""
        result = self.product.order(*words, "--json", check=False)
        assert result.returncode == 1, result.stdout
        assert "Traceback" not in result.stderr
        return json.loads(result.stdout)

    def refused(self, *words: str) -> tuple[str, str]:
        """Code and text of the error of an order that is refused."""
        error = self.tried(*words)["error"]
        return error["code"], error["text"]

    def create(self, *targets: str, template: str = "win11", clone: str = "linked") -> None:
        words = [word for name in targets for word in ("--target", name)]
        source = ("--source", f"{self.home}:golden", "--clone", clone)
        self.product.order("template", "create", template, *source, *words)

    def limit(self, name: str, bandwidth: int) -> None:
        self.run("provider", "limit", name, "--bandwidth", str(bandwidth))

    # Answers

    def status(self, template: str = "win11") -> dict[str, Any]:
        return dict(self.run("template", "status", template))

    def target(self, name: str, template: str = "win11") -> dict[str, Any]:
        """What is said of one provider; empty when the template is not distributed to it."""
        targets = self.status(template)["targets"]
        return next((dict(target) for target in targets if target["provider"] == name), {})

    def words(self, name: str, template: str = "win11") -> tuple[str, str, str | None]:
        """State, Progress and the code of the error of one provider."""
        target = self.target(name, template)
        return target["state"], target["progress"], (target["error"] or {}).get("code")

    def guest(self, name: str) -> dict[str, Any]:
        return next(dict(guest) for guest in self.run("guest", "list") if guest["name"] == name)

    def guests(self, name: str) -> list[str]:
        return [guest["name"] for guest in self.run("guest", "list", "--provider", name)]

    def installed(self, version: int) -> dict[str, str]:
        """The history's latest word on how a version came to each provider."""
        told = self.product.order("shell", "-v0", "-c", _HISTORY.format(version=version))
        return dict(line.split(": ", 1) for line in told.stdout.splitlines() if line)

    def until(self, condition: Callable[[], Any], what: str, template: str = "win11") -> None:
        try:
            wait_for(condition, SETTLED_SECONDS, what, ORDER_PAUSE)
        except AssertionError as error:
            told = json.dumps([self.status(template), self.run("provider", "list")], indent=1)
            raise AssertionError(f"{error}\n{told}\n{self.product.output[-3000:]}") from None

    def until_ok(self, template: str = "win11") -> None:
        self.until(lambda: self.status(template)["distribution"] == "OK", "OK", template)

    def until_word(self, name: str, word: str, template: str = "win11") -> None:
        self.until(lambda: self.words(name, template)[1] == word, f"{word} on {name}", template)

    def until_code(self, name: str, code: str, template: str = "win11") -> None:
        self.until(lambda: self.words(name, template)[2] == code, f"{code} on {name}", template)

    def until_state(self, name: str, state: str) -> None:
        def said() -> bool:
            return any((row["name"], row["state"]) == (name, state) for row in self.run("provider", "list"))

        wait_for(said, SETTLED_SECONDS, f"{name} {state}", ORDER_PAUSE)

    # Hosts

    def add_source(self, content: bytes, runs: tuple[tuple[int, int], ...], data: bytes = b"") -> None:
        """A VM with a raw disk, and with ``data`` on a qcow2 disk beside it."""
        bench = self.benches[self.home]
        file = bench.add_vm("golden", content, runs)
        if data:
            bench.libvirt.lookupByName("golden").undefine()
            bench.define("golden", file, extra=bench.add_packed("golden-data.qcow2", data))
        self.product.order("provider", "check", self.home)

    @contextmanager
    def without_power(self, name: str) -> Iterator[None]:
        """Meanwhile a host is off."""
        host = self.benches[name].host
        host.power_cut()
        try:
            yield
        finally:
            host.boot()

    @contextmanager
    def frozen(self, name: str) -> Iterator[None]:
        """Meanwhile the daemon of a host answers nothing, and its connections stay open."""
        host = self.benches[name].host
        host.freeze()
        try:
            yield
        finally:
            host.thaw()

    def published(self, name: str, version: int, disk: int = 0, template: str = "win11") -> bytes:
        """The bytes of a published image, read past libvirt and past rasweb."""
        with self.benches[name].driver() as host:
            (image,) = [
                image
                for image in host.survey().images
                if image.name.startswith(f"{template}-")
                and image.mark
                and (image.mark.version, image.mark.disk) == (version, disk)
            ]
        return self.benches[name].path(image.ref).read_bytes()

    def files(self, name: str) -> set[str]:
        """All that lies in the pool of a host, but for what tells it from an empty folder."""
        return set(os.listdir(self.benches[name].folder)) - {".rasweb-host.json"}
