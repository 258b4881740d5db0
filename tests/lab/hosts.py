"""Real libvirt hosts, several on one machine: each a set of namespaces with its own libvirtd, networks and folders.

Needs root. Standard library only: the file also runs as the first process of each host. Nothing outside ``base`` is
touched; the mounts live in the namespaces and go with them.
"""

from __future__ import annotations

import contextlib
import gc
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

PROGRAMS = {
    "libvirtd": "libvirt-daemon",
    "virsh": "libvirt-clients",
    "qemu-system-x86_64": "qemu-system-x86",
    "qemu-img": "qemu-utils",
    "dnsmasq": "dnsmasq-base",
    "iptables": "iptables",
    "ip": "iproute2",
    "unshare": "util-linux",
}
LONGEST_BASE = 70  # a socket's path has 107 bytes at most
UP_SECONDS = 30.0
_OWN_FOLDERS = {
    "etc": "/etc/libvirt",
    "lib": "/var/lib/libvirt",
    "cache": "/var/cache/libvirt",
    "log": "/var/log/libvirt",
}
_CAPABILITIES = Path("cache/qemu/capabilities")
_DAEMON = """\
listen_tls = 0
listen_tcp = 0
host_uuid = "{uuid}"
unix_sock_dir = "{sock}"
unix_sock_rw_perms = "0700"
auth_unix_ro = "none"
auth_unix_rw = "none"
log_outputs = "2:file:/var/log/libvirt/libvirtd.log"
max_clients = 200
"""
_OWN = "# the daemon's own\n"
_QEMU = """\
user = "root"
group = "root"
security_driver = "none"
dynamic_ownership = 0
remember_owner = 0
namespaces = []
cgroup_controllers = []
stdio_handler = "file"
max_core = 0
"""


_HELD = """\
#!/bin/sh
while [ "$1" = convert ] && [ -e {hold} ]; do sleep 0.05; done
exec {tool} "$@"
"""


def obstacle(programs: Mapping[str, str] = PROGRAMS) -> str:
    """Say what keeps this machine from being a lab; empty when nothing does. ``programs``: the package of each."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "the lab of libvirt hosts needs Linux and root (namespaces)"
    missing = [package for program, package in programs.items() if not _found(program)]
    if missing:
        return f"the lab of libvirt hosts needs the Debian packages {' '.join(missing)}"
    try:
        import libvirt  # noqa: F401 - asked for, not used
    except ImportError:
        return "the lab of libvirt hosts needs libvirt-python: make install-libvirt (after apt-get install libvirt-dev)"
    return ""


def _found(program: str) -> bool:
    return shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin") is not None


@dataclass
class Host:
    """One host. ``number`` counts from 1; ``pool_mib`` makes its folder for images a file system of that size.

    ``doors`` is where its socket is reached from outside, if not in its own folder.
    """

    base: Path
    number: int
    pool_mib: int = 0
    doors: Path | None = None

    @property
    def folder(self) -> Path:
        return self.base / f"h{self.number}"

    @property
    def sockets(self) -> Path:
        return self.doors / f"h{self.number}" if self.doors else self.folder / "sock"

    @property
    def socket(self) -> str:
        return str(self.sockets / "libvirt-sock")

    @property
    def uri(self) -> str:
        return f"qemu+unix:///system?socket={self.socket}"

    @property
    def images(self) -> Path:
        """The host's ``/var/lib/libvirt/images``, seen through its first process where it is a mount of its own."""
        if self.pool_mib:
            return Path(f"/proc/{self.first()}/root/var/lib/libvirt/images")
        return self.folder / "lib" / "images"

    def boot(self) -> Host:
        """Start it, or start it again on its old state, and wait until it answers."""
        self.begin()
        self.wait()
        return self

    def begin(self) -> None:
        from rasweb import processes  # not there for the first process of a host

        self._prepare()
        with (self.folder / "log" / "host.log").open("ab") as log:
            words = (
                "--mount --net --pid --uts --ipc --fork --kill-child=KILL --mount-proc --propagation private"
            )
            own = (self.folder, self.pool_mib, self.sockets)
            host = ["unshare", *words.split(), sys.executable, __file__, "init", *map(str, own)]
            process = subprocess.Popen(
                processes.tethered(host),  # whoever kills a test run leaves no host behind
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"},
            )
        _processes[self.folder] = process
        (self.folder / "pid").write_text(str(process.pid))

    def wait(self) -> None:
        """Wait for a real answer: the socket is there long before the daemon is ready."""
        deadline = time.monotonic() + UP_SECONDS
        while not self.answers():
            if time.monotonic() > deadline or not _alive(self._outer()):
                raise RuntimeError(f"{self.folder.name} did not come up:\n{self._last_words()}")
            time.sleep(0.05)

    def answers(self, seconds: float = 5.0) -> bool:
        if not os.path.exists(self.socket):
            return False
        with contextlib.suppress(subprocess.TimeoutExpired):
            asked = subprocess.run(
                ["virsh", "-q", "-c", self.uri, "hostname"], capture_output=True, timeout=seconds, check=False
            )
            return asked.returncode == 0
        return False

    def power_cut(self) -> None:
        """Everything of the host ends at once: daemon, guests, networks. What it had not written is not simulated."""
        if first := self.first():
            os.kill(first, signal.SIGKILL)
        self._await_end(self._outer())

    def kill_daemon(self) -> None:
        """The daemon crashes; guests live on, and it is started again by the host."""
        os.kill(self._daemon(), signal.SIGKILL)

    def configure(self, *lines: str) -> None:
        """Put lines before the daemon's own settings, where they win, and start it again; none: as it was."""
        known = self.folder / "etc" / "libvirtd.conf"
        own = known.read_text().rpartition(_OWN)[2]
        known.write_text("".join(f"{line}\n" for line in lines) + _OWN + own)
        self.kill_daemon()
        self.wait()

    def freeze(self) -> None:
        """The daemon still holds its connections, and answers nothing."""
        gc.collect()  # what is left of a connection of this process takes its leave of the daemon, and would wait
        os.kill(self._daemon(), signal.SIGSTOP)

    def thaw(self) -> None:
        os.kill(self._daemon(), signal.SIGCONT)

    @contextlib.contextmanager
    def copies_held(self) -> Iterator[None]:
        """Meanwhile every copy that the host makes by itself begins and does not end."""
        hold, tool = self.folder / "hold", shutil.which("qemu-img")
        if not (self.folder / "qemu-img").exists():
            shutil.copy(str(tool), self.folder / "qemu-img")
            (self.folder / "held").write_text(_HELD.format(hold=hold, tool=self.folder / "qemu-img"))
            (self.folder / "held").chmod(0o755)
        if not Path(f"/proc/{self.first()}/root{tool}").read_bytes().startswith(b"#!"):
            inside = f"--mount=/proc/{self.first()}/ns/mnt"
            _run("nsenter", inside, "mount", "--bind", str(self.folder / "held"), str(tool))
        hold.touch()
        try:
            yield
        finally:
            hold.unlink()

    def _prepare(self) -> None:
        for name in (*_OWN_FOLDERS, "sock"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        self.sockets.mkdir(parents=True, exist_ok=True)
        (self.folder / "lib" / "images").mkdir(exist_ok=True)
        for left in self.sockets.iterdir():
            left.unlink()
        if not (self.folder / "etc" / "libvirtd.conf").exists():
            known = _DAEMON.format(uuid=uuid.uuid4(), sock=self.folder / "sock")
            (self.folder / "etc" / "libvirtd.conf").write_text(known)
            (self.folder / "etc" / "qemu.conf").write_text(_QEMU)
            self._spare_probing()

    def _spare_probing(self) -> None:
        """Give a new host what earlier ones found out about QEMU; the daemon looks whether it still holds."""
        (self.folder / _CAPABILITIES).mkdir(parents=True)
        for folder in _processes:
            _known.update((file.name, file.read_bytes()) for file in (folder / _CAPABILITIES).glob("*.xml"))
        for name, text in _known.items():
            (self.folder / _CAPABILITIES / name).write_bytes(text)

    def _outer(self) -> int:
        try:
            return int((self.folder / "pid").read_text())
        except (FileNotFoundError, ValueError):
            return 0

    def first(self) -> int:
        """The first process of the host, in whose namespaces all of it lives; 0 when there is none."""
        return next(iter(_children(self._outer())), 0)

    def _daemon(self) -> int:
        deadline = time.monotonic() + UP_SECONDS
        while time.monotonic() < deadline:
            for child in _children(self.first()):
                with contextlib.suppress(OSError):
                    if Path(f"/proc/{child}/comm").read_text().strip() == "libvirtd":
                        return child
            time.sleep(0.05)
        raise RuntimeError(f"{self.folder.name} has no daemon")

    def _await_end(self, pid: int) -> None:
        if process := _processes.pop(self.folder, None):
            process.wait(UP_SECONDS)
        deadline = time.monotonic() + UP_SECONDS
        while _alive(pid) and time.monotonic() < deadline:
            time.sleep(0.02)

    def _last_words(self) -> str:
        logs = sorted((self.folder / "log").glob("*.log"))
        return "\n".join(line for log in logs for line in log.read_text(errors="replace").splitlines()[-5:])


_processes: dict[Path, subprocess.Popen[bytes]] = {}
_known: dict[str, bytes] = {}  # files of capabilities


class Lab:
    """A folder of hosts; ``with Lab(3) as lab`` starts and ends them."""

    def __init__(
        self, count: int, base: Path | None = None, *, pool_mib: int = 0, doors: Path | None = None
    ) -> None:
        self.base = Path(base or tempfile.mkdtemp(prefix="lab-", dir="/tmp")).resolve()
        if len(str(self.base)) > LONGEST_BASE:
            raise ValueError(f"{self.base} is too long for sockets: at most {LONGEST_BASE} characters")
        self._doors = doors
        self.hosts = [Host(self.base, number, pool_mib, doors) for number in range(1, count + 1)]

    def __enter__(self) -> Lab:
        try:
            for host in self.hosts:
                host.begin()
            for host in self.hosts:
                host.wait()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """End all hosts and delete their folders."""
        for host in self.hosts:
            host.power_cut()
        for folder in filter(None, (self.base, self._doors)):
            shutil.rmtree(folder, ignore_errors=True)


def _children(pid: int) -> Iterator[int]:
    with contextlib.suppress(OSError):
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split() if pid else ():
            yield int(child)


def _alive(pid: int) -> bool:
    try:
        return bool(pid) and Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


# The first process of a host


def be_host(folder: Path, pool_mib: int, sockets: Path) -> None:
    """Become the host: folders of its own under the usual paths, a bridge, and a daemon that is always restarted."""
    if sockets != folder / "sock":
        _run("mount", "--bind", str(sockets), str(folder / "sock"))
    _run("mount", "-t", "tmpfs", "-o", "mode=755,size=64m", "tmpfs", "/run")
    os.makedirs("/run/lock")
    for name, path in _OWN_FOLDERS.items():
        os.makedirs(path, exist_ok=True)
        _run("mount", "--bind", str(folder / name), path)
    os.makedirs(
        "/var/lib/libvirt/dnsmasq", exist_ok=True
    )  # of Debian's package; libvirt keeps lists of MACs there
    for name, line in (
        ("passwd", "libvirt-qemu:x:64055:64055::/:/bin/false"),
        ("group", "libvirt-qemu:x:64055:"),
    ):
        known = Path(f"/etc/{name}").read_text()
        if "\nlibvirt-qemu:" not in known:  # Debian's build of libvirt insists on this account
            (folder / "etc" / name).write_text(f"{known.rstrip()}\n{line}\n")
            _run("mount", "--bind", str(folder / "etc" / name), f"/etc/{name}")
    if pool_mib:
        _run("mount", "-t", "tmpfs", "-o", f"size={pool_mib}m", "tmpfs", "/var/lib/libvirt/images")
    if os.path.exists("/dev/kvm"):  # what half works is worse than none: the guests of a lab are emulated
        (folder / "etc" / "kvm").touch()
        _run("mount", "--bind", str(folder / "etc" / "kvm"), "/dev/kvm")
        _run(
            "mount", "-o", "remount,ro,bind", "/dev/kvm"
        )  # or libvirt takes it for usable, and asks QEMU each time
    _run("mount", "-t", "sysfs", "sysfs", "/sys")
    _run("hostname", folder.name)
    _run("ip", "link", "set", "lo", "up")
    _run("ip", "link", "add", "br0", "type", "bridge")
    _run("ip", "link", "set", "br0", "up")
    _run("ip", "address", "add", "192.0.2.1/24", "dev", "br0")  # with loopback alone libvirt opens no port
    while True:
        daemon = subprocess.Popen(
            ["/usr/sbin/libvirtd", "-l", "-f", "/etc/libvirt/libvirtd.conf", "-p", "/run/libvirtd.pid"]
        )
        while os.wait()[0] != daemon.pid:
            pass  # what the daemon left behind: the first process has to bury it
        time.sleep(0.3)


def _run(*command: str) -> None:
    subprocess.run(command, check=True)


if __name__ == "__main__" and sys.argv[1:2] == ["init"]:
    be_host(Path(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]))
