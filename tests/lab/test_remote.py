"""Hosts behind real ssh and TLS servers: added, read, written and heard by the product, and refused in words."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from providers_app.drivers import Unreachable, open_driver
from providers_app.drivers.libvirt import connection
from tests.faults.bench import SHORT
from tests.lab.bench import LibvirtBench
from tests.lab.fixtures import require
from tests.lab.remote import NEEDED, Account, Authority, SshServer, TlsServer, silent_port
from tests.product import Product, wait_for

MIB = 1 << 20
SIZE = 8 * MIB
LONG = 5 * MIB  # sent in a message that is as large as they come
SETTLED_SECONDS = 120.0
_ASK = """
import json
from providers_app.drivers import DriverError, open_driver
try:
    open_driver("libvirt", {settings!r}).register()
except DriverError as error:
    print(json.dumps([error.code, error.action]))
"""


def test_an_ssh_host_that_says_nothing_is_given_up_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    require(NEEDED)
    monkeypatch.setattr(connection, "CONNECT_SECONDS", 0.5)
    with closing(silent_port()) as port:
        settings = {"transport": "ssh", "host": "127.0.0.1", "port": port.getsockname()[1], "pool": "images"}
        with pytest.raises(Unreachable) as silent:
            open_driver("libvirt", settings).register()
    assert silent.value.code == "TIMEOUT"
    assert silent.value.action


class Site:
    """A product whose hosts are remote: ``one`` by ssh, ``two`` by TLS."""

    def __init__(self, folder: Path, benches: list[LibvirtBench], stack: ExitStack) -> None:
        self.account = Account(folder / "account")
        self.one, self.two = benches[:2]
        self.authority = Authority()
        self.ssh = SshServer(self.one.host, self.account)
        stack.callback(self.ssh.close)
        self.tls = TlsServer(self.two.host, self.authority, "rasweb")
        stack.callback(self.tls.close)
        self.product = Product(folder / "data", dict(SHORT), self.account.within)
        stack.callback(self.product.close)

    def by_ssh(self, user: str = "rasweb") -> dict[str, object]:
        """The settings of the first host."""
        return self._settings(self.one, "ssh", self.ssh.door.port) | {"user": user}

    def by_tls(self, host: str = "127.0.0.1") -> dict[str, object]:
        """The settings of the second host."""
        return self._settings(self.two, "tls", self.tls.door.port) | {"host": host}

    @staticmethod
    def _settings(bench: LibvirtBench, transport: str, port: int) -> dict[str, object]:
        return {"transport": transport, "host": "127.0.0.1", "port": port, "pool": bench.pool}

    def add(self, name: str, settings: dict[str, object]) -> str:
        """Add a host; return the code of the error, nothing where there is none."""
        words = [word for part, value in settings.items() for word in ("--set", f"{part}={value}")]
        order = ("provider", "add", name, "--kind", "libvirt", *words, "--json")
        answer = self.product.order(*order, check=False)
        assert "Traceback" not in answer.stderr
        return str(json.loads(answer.stdout)["error"]["code"]) if answer.returncode else ""

    def refusal(self, settings: dict[str, object]) -> tuple[str, str]:
        """Code and action of the error with which a host is not reached; asked in the account's process."""
        said = self.product.order("shell", "-v0", "-c", _ASK.format(settings=settings)).stdout
        return tuple(json.loads(said.splitlines()[-1]))

    def words(self) -> list[str]:
        """How each template is distributed."""
        told = json.loads(self.product.order("template", "status", "--json").stdout)
        return [template["distribution"] for template in told]


@pytest.fixture
def site(benches: list[LibvirtBench], tmp_path: Path) -> Iterator[Site]:
    require(NEEDED)
    with ExitStack() as stack:
        yield Site(tmp_path, benches, stack)


@pytest.mark.product
def test_templates_go_from_an_ssh_host_to_a_tls_host_and_back(site: Site) -> None:
    site.product.start()
    assert site.add("one", site.by_ssh()) == "HOST_KEY"
    site.account.trust(site.ssh.door, site.account.ssh / "id_ed25519.pub")
    assert site.refusal(site.by_ssh())[0] == "HOST_KEY"
    site.account.trust(site.ssh.door, site.ssh.public_key)
    for user, what in (("stranger", "authorized_keys"), ("outsider", "right to manage libvirt")):
        code, action = site.refusal(site.by_ssh(user))
        assert (code, what in action) == ("PERMISSION", True), action
    assert site.add("one", site.by_ssh()) == ""

    assert site.refusal(site.by_tls())[0] == "PREREQUISITE"
    site.account.present(Authority(), "rasweb")
    assert site.refusal(site.by_tls())[0] == "CERTIFICATE"
    site.account.present(site.authority, "somebody")
    code, action = site.refusal(site.by_tls())
    assert (code, "tls_allowed_dn_list" in action) == ("PERMISSION", True), action
    site.account.present(site.authority, "rasweb")
    assert site.refusal(site.by_tls("localhost"))[0] == "CERTIFICATE"
    assert site.add("two", site.by_tls()) == ""

    content = os.urandom(LONG).ljust(SIZE - MIB, b"\0") + os.urandom(MIB)
    for source, name, target in ((site.one, "one", "two"), (site.two, "two", "one")):
        source.add_vm("golden", content, ((0, LONG), (SIZE - MIB, MIB)))
        site.product.order("provider", "check", name)
        order = ("template", "create", f"of-{name}", "--source", f"{name}:golden", "--target", target)
        site.product.order(*order, "--wait")
    wait_for(lambda: site.words() == ["OK"] * 2, SETTLED_SECONDS, "OK")
    for bench in (site.one, site.two):
        images = [image for image in bench.connected().survey().images if image.mark]
        assert [bench.path(image.ref).read_bytes() for image in images] == [content] * 2
    heard = ("one is heard", "two is heard")
    wait_for(lambda: all(word in site.product.output for word in heard), SETTLED_SECONDS, "events")
    assert "Traceback" not in site.product.output
