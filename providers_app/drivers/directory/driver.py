"""A host that is a folder: source VMs in ``vms``, published images in ``images``, clones in ``guests``."""

from __future__ import annotations

from providers_app.drivers import files, qcow2
from providers_app.drivers.base import VM, Can, CloneSpec, Driver, Mark, Sink, Source, Survey
from providers_app.drivers.blocks import FileSource
from providers_app.drivers.errors import Missing, Refused

from . import images, layout, listing, machines
from .errors import errors
from .layout import Host


class Directory(Driver):
    """A folder of this machine or of a file server that is mounted here."""

    kind = "directory"
    label = "Directory"
    can = frozenset({Can.FULL_CLONE, Can.LINKED_CLONE})

    _host: Host | None = None

    @property
    def host(self) -> Host:
        if self._host is None:
            raise RuntimeError("The driver is not connected")
        return self._host

    def connect(self) -> None:
        self._host = layout.open_host(self.settings)

    def close(self) -> None:
        if self._host is not None:
            self._host.close()
            self._host = None

    def register(self) -> str:
        try:
            root = layout.open_root(self.settings)
        except Missing:
            raise Refused(
                f"There is no folder {files.shown(str(self.settings.get('path')), 300)}.",
                code="PREREQUISITE",
                action="Make the folder or mount it, then add the host again.",
            ) from None
        with root:
            return layout.register(root)

    def location(self, ref: str) -> str:
        return f"{str(self.settings.get('path', '')).rstrip('/')}/{ref}"

    def survey(self) -> Survey:
        return listing.survey(self.host, self._networks())

    def open_source(self, ref: str) -> Source:
        name = ref.rpartition("/")[2]
        what, where = f"the disk image {files.shown(name)}", self.host.path
        try:
            with errors(what, where), self.host.folder_of(ref) as folder:
                source = FileSource(folder, name, lambda: errors(what, where))
        except Missing as error:
            raise Missing(error.text, code="SOURCE_MISSING", action=error.action) from error
        try:
            qcow2.virtual_size(source.fileno(), "qcow2" if name.endswith(".qcow2") else "raw")
        except BaseException:
            source.close()
            raise
        return source

    def stage(self, name: str, size: int, mark: Mark) -> Sink:
        return images.stage(self.host, name, size, mark)

    def confirm(self, name: str, mark: Mark, stamp: str) -> None:
        images.confirm(self.host, name, mark, stamp)

    def remove(self, name: str, mark: Mark, *, force: bool = False) -> None:
        images.remove(self.host, name, mark, force=force)

    def discard(self, name: str, mark: Mark) -> None:
        images.discard(self.host, name, mark)

    def clone(self, spec: CloneSpec) -> VM:
        self._check(spec)
        return machines.make(machines.guests(self.host), spec)

    def recreate(self, spec: CloneSpec) -> VM:
        self._check(spec)
        return machines.remake(machines.guests(self.host), spec)

    def delete_guest(self, name: str, mark: Mark) -> None:
        machines.delete(machines.guests(self.host), name, mark)

    def make_working_copy(self, spec: CloneSpec) -> VM:
        self._check(spec)
        return machines.make(machines.working_copies(self.host), spec)

    def remove_working_copy(self, name: str, mark: Mark) -> None:
        machines.delete(machines.working_copies(self.host), name, mark)

    def _check(self, spec: CloneSpec) -> None:
        network, known = spec.definition.network, self._networks()
        if network and known is not None and network not in known:
            raise Missing(
                f"The host folder {self.host.path} has no virtual switch {network}.",
                code="NETWORK_MISSING",
                action="Add it to the host's settings, or choose another.",
            )

    def _networks(self) -> tuple[str, ...] | None:
        named = [name.strip() for name in str(self.settings.get("networks") or "").split(",")]
        return tuple(name for name in named if name) or None
