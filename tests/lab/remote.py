"""Ways into a host of the lab from outside: a real sshd in it, libvirt's own TLS port, and an account that comes by
them with keys of its own. Nothing of the machine's own ``/etc`` or ``~/.ssh`` is read or changed."""

from __future__ import annotations

import datetime as dt
import ipaddress
import shutil
import socket
import subprocess
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.lab.hosts import PROGRAMS, Host
from tests.lab.links import enter_network

NEEDED = {**PROGRAMS, "ssh": "openssh-client", "sshd": "openssh-server"}
USERS = {"rasweb": 64101, "outsider": 64102}
GROUP = 64100
_UP_SECONDS = 20.0
_SSHD = """\
ListenAddress 127.0.0.1
HostKey {keys}/host
PidFile none
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
"""
# What an administrator does on a host, by docs/drivers/libvirt.md; and what a Debian package does for sshd.
_SETTLE = """\
set -e
mkdir -p /run/sshd /run/libvirt
for name in passwd group; do mount --bind {keys}/$name /etc/$name; done
touch /run/libvirt/libvirt-sock
mount --bind {socket} /run/libvirt/libvirt-sock
chgrp {group} /run/libvirt/libvirt-sock
chmod 0770 /run/libvirt/libvirt-sock
for user in {users}; do
    mkdir -p /run/home/$user/.ssh
    cp {keys}/authorized /run/home/$user/.ssh/authorized_keys
    chown -R $user:{group} /run/home/$user
    chmod -R go= /run/home/$user
done
"""


class Door(threading.Thread):
    """A port of this machine that leads to one of a host, whose network is its own."""

    def __init__(self, host: Host, port: int) -> None:
        super().__init__(name=f"door-{port}", daemon=True)
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._server.getsockname()[1]
        self._host, self._inner = host, port

    def run(self) -> None:
        enter_network(self._host.first())
        while True:
            try:
                near, _ = self._server.accept()
            except OSError:
                return
            try:
                far = socket.create_connection(("127.0.0.1", self._inner))
            except OSError:
                near.close()
                continue
            for one, other in ((near, far), (far, near)):
                threading.Thread(target=_pour, args=(one, other), daemon=True).start()

    def answers(self) -> bool:
        with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1) as near:
            near.settimeout(0.3)
            try:
                return bool(near.recv(1))
            except TimeoutError:
                return True
        return False

    def wait(self) -> Door:
        deadline = time.monotonic() + _UP_SECONDS
        while not self.answers():
            if time.monotonic() > deadline:
                raise RuntimeError(f"nothing answers at port {self._inner} of the host")
            time.sleep(0.05)
        return self

    def close(self) -> None:
        with suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()


def _pour(one: socket.socket, other: socket.socket) -> None:
    with suppress(OSError):
        while data := one.recv(1 << 16):
            other.sendall(data)
    for end in (one, other):
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)


@dataclass
class Account:
    """The account that runs the product: ``within`` are the words that start a program as it.

    It is root in a mount namespace with another home, and with certificates of its own where libvirt looks for them.
    """

    folder: Path

    def __post_init__(self) -> None:
        self.ssh.mkdir(parents=True, mode=0o700)
        self.pki.mkdir()
        etc = self.folder / "etc"
        etc.mkdir()
        (etc / "pki").symlink_to(self.pki)
        lines = [
            line for line in Path("/etc/passwd").read_text().splitlines() if not line.startswith("root:")
        ]
        own = f"root:x:0:0:root:{self.ssh.parent}:/bin/sh"
        (etc / "passwd").write_text("\n".join([own, *lines, ""]))
        _keygen(self.ssh / "id_ed25519")

    @property
    def ssh(self) -> Path:
        return self.folder / "home" / ".ssh"

    @property
    def pki(self) -> Path:
        return self.folder / "pki"

    @property
    def public_key(self) -> str:
        return (self.ssh / "id_ed25519.pub").read_text()

    @property
    def within(self) -> tuple[str, ...]:
        mount = f'mount -t overlay -o lowerdir={self.folder}/etc:/etc overlay /etc && exec "$@"'
        return ("unshare", "--mount", "--propagation", "private", "sh", "-c", mount, "sh")

    def trust(self, door: Door, key: Path) -> None:
        (self.ssh / "known_hosts").write_text(f"[127.0.0.1]:{door.port} {key.read_text()}")

    def present(self, authority: Authority, name: str) -> None:
        """Use certificates of this authority from now on."""
        shutil.rmtree(self.pki)
        (self.pki / "CA").mkdir(parents=True)
        (self.pki / "libvirt" / "private").mkdir(parents=True)
        (self.pki / "CA" / "cacert.pem").write_bytes(authority.certificate)
        authority.sign(
            name, self.pki / "libvirt" / "clientcert.pem", self.pki / "libvirt" / "private" / "clientkey.pem"
        )


class SshServer:
    """An sshd in a host, with an account that may manage libvirt and one that may not."""

    def __init__(self, host: Host, account: Account) -> None:
        self.keys = host.folder / "ssh"
        self.keys.mkdir()
        _keygen(self.keys / "host")
        (self.keys / "authorized").write_text(f'restrict,from="127.0.0.1" {account.public_key}')
        (self.keys / "config").write_text(_SSHD.format(keys=self.keys))
        self._write_accounts()
        self._in_host = ("nsenter", "--target", str(host.first()), "--mount", "--net", "--uts", "--ipc")
        settle = _SETTLE.format(keys=self.keys, socket=host.socket, group=GROUP, users=" ".join(USERS))
        subprocess.run([*self._in_host, "--pid", "sh", "-c", settle], check=True)
        with (self.keys / "log").open("ab") as log:
            words = ["/usr/sbin/sshd", "-D", "-e", "-f", str(self.keys / "config")]
            self._sshd = subprocess.Popen([*self._in_host, *words], stdin=subprocess.DEVNULL, stderr=log)
        self.door = Door(host, 22)
        self.door.start()
        self.door.wait()

    @property
    def public_key(self) -> Path:
        return self.keys / "host.pub"

    def _write_accounts(self) -> None:
        users = [f"{name}:x:{number}:{GROUP + 1}::/run/home/{name}:/bin/sh" for name, number in USERS.items()]
        groups = [f"libvirt-lab:x:{GROUP}:rasweb", f"others-lab:x:{GROUP + 1}:"]
        for name, lines in (("passwd", users), ("group", groups)):
            (self.keys / name).write_text(Path(f"/etc/{name}").read_text() + "\n".join([*lines, ""]))

    def close(self) -> None:
        self.door.close()
        self._sshd.terminate()
        self._sshd.wait(_UP_SECONDS)
        undo = "umount /run/libvirt/libvirt-sock /etc/passwd /etc/group; rm -r /run/home"
        subprocess.run([*self._in_host, "--pid", "sh", "-c", undo], check=True)
        shutil.rmtree(self.keys)


class TlsServer:
    """A host's libvirt on its TLS port, which lets in one client."""

    def __init__(self, host: Host, authority: Authority, client: str) -> None:
        self._host = host
        self.keys = host.folder / "tls"
        self.keys.mkdir()
        (self.keys / "ca.pem").write_bytes(authority.certificate)
        authority.sign("127.0.0.1", self.keys / "cert.pem", self.keys / "key.pem")
        host.configure(
            "listen_tls = 1",
            'listen_addr = "127.0.0.1"',
            f'ca_file = "{self.keys}/ca.pem"',
            f'cert_file = "{self.keys}/cert.pem"',
            f'key_file = "{self.keys}/key.pem"',
            f'tls_allowed_dn_list = ["CN={client}"]',
        )
        self.door = Door(host, 16514)
        self.door.start()
        self.door.wait()

    def close(self) -> None:
        self.door.close()
        self._host.configure()
        shutil.rmtree(self.keys)


class Authority:
    """A certificate authority for an hour."""

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "lab")])
        made = _certificate(self._name, self._key, self._name).add_extension(
            x509.BasicConstraints(ca=True, path_length=None), critical=True
        )
        self.certificate = made.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    def sign(self, name: str, certificate: Path, key: Path) -> None:
        """Write a certificate for ``name``, an address or any name, and its key."""
        own = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        made = _certificate(subject, own, self._name)
        with suppress(ValueError):
            address = x509.IPAddress(ipaddress.ip_address(name))
            made = made.add_extension(x509.SubjectAlternativeName([address]), critical=False)
        signed = made.sign(self._key, hashes.SHA256())
        certificate.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
        key.write_bytes(
            own.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        key.chmod(0o600)


def _certificate(
    subject: x509.Name, key: ec.EllipticCurvePrivateKey, issuer: x509.Name
) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(minutes=5))
        .not_valid_after(now + dt.timedelta(hours=1))
    )


def _keygen(path: Path) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path], check=True)


def silent_port() -> socket.socket:
    """A port that takes connections and never says a word, as the port of a host that hangs."""
    return socket.create_server(("127.0.0.1", 0))


__all__ = ["NEEDED", "Account", "Authority", "Door", "SshServer", "TlsServer", "silent_port"]
