"""An ordinary driver of an invented hypervisor: ids are opaque, VMs can be switched on, and things go wrong."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager

from providers_app.drivers import files, qcow2
from providers_app.drivers.base import VM, Can, CloneSpec, Driver, Image, Mark, Sink, Source, Survey
from providers_app.drivers.errors import Missing
from providers_app.drivers.simulator import hosts, images, machines
from providers_app.drivers.simulator.disks import SimulatorSink, SimulatorSource, image_of
from providers_app.drivers.simulator.errors import errors
from providers_app.drivers.simulator.faults import HOSTILE_NAMES, Faults, Plan
from providers_app.drivers.simulator.index import Held, Index, Machine, Store


class Simulator(Driver):
    """A hypervisor whose state is a folder with an index."""

    kind = "simulator"
    label = "Simulator"
    can = frozenset(Can)

    _store: Store | None = None

    @property
    def store(self) -> Store:
        if self._store is None:
            raise RuntimeError("The driver is not connected")
        return self._store

    @property
    def plan(self) -> Plan:
        return Plan(self.store.root, str(self.settings.get("faults") or ""))

    def connect(self) -> None:
        hosts.log_in(self.settings, self.secrets)
        self._store = hosts.connect(self.settings)
        self._meet("connect")

    def close(self) -> None:
        if self._store is not None:
            self._store.close()
            self._store = None

    def register(self) -> str:
        hosts.log_in(self.settings, self.secrets)
        return hosts.register(self.settings)

    def survey(self) -> Survey:
        faults = self._meet("survey")
        with self._errors("its state"):
            index = self.store.read()
            free, total = self.store.root.space()
            invented = HOSTILE_NAMES if faults.hostile_names else ()
            return Survey(
                index.host_id,
                can=frozenset(Can) if qcow2.can_link() else frozenset(Can) - {Can.LINKED_CLONE},
                vms=(*self._machines(index.vms, stands_alone=True), *map(_hostile, invented)),
                guests=self._machines(index.guests),
                images=self._images(index.images),
                staged=self._images(index.staged),
                networks=self._networks(),
                free_bytes=0 if faults.full(1) else free,
                total_bytes=total,
            )

    def open_source(self, ref: str) -> Source:
        self._meet("open_source")
        with self._errors("a disk image"):
            form = _format_of(self.store.read(), ref)
            self.store.stamp(ref)
            source = SimulatorSource(self.store, ref, lambda: self._errors("a disk image"), self.plan)
        try:
            qcow2.virtual_size(source.fileno(), form)
        except BaseException:
            source.close()
            raise
        return source

    def stage(self, name: str, size: int, mark: Mark) -> Sink:
        self._meet("stage")
        self.plan.transfer("write", 0, 1)
        files.check_image_name(name)
        with self._errors(f"the image {name}"):
            held, fd = images.stage(self.store, name, size, mark)
        return SimulatorSink(self.store, held, fd, lambda: self._errors(f"the image {name}"), self.plan)

    def confirm(self, name: str, mark: Mark, stamp: str) -> None:
        self._meet("confirm")
        files.check_image_name(name)
        with self._errors(f"the image {name}"):
            images.confirm(self.store, name, mark, stamp)

    def remove(self, name: str, mark: Mark, *, force: bool = False) -> None:
        self._meet("remove")
        files.check_image_name(name)
        with self._errors(f"the image {name}"):
            images.remove(self.store, name, mark, force=force)

    def discard(self, name: str, mark: Mark) -> None:
        self._meet("discard")
        files.check_image_name(name)
        with self._errors(f"the image {name}"):
            images.discard(self.store, name, mark)

    def clone(self, spec: CloneSpec) -> VM:
        return self._make("clone", machines.GUESTS, spec)

    def make_working_copy(self, spec: CloneSpec) -> VM:
        return self._make("make_working_copy", machines.VMS, spec)

    def recreate(self, spec: CloneSpec) -> VM:
        self._meet("recreate")
        self._check(spec)
        with self._errors(f"the VM {spec.name}"):
            return machines.remake(self.store, spec)

    def delete_guest(self, name: str, mark: Mark) -> None:
        self._delete("delete_guest", machines.GUESTS, name, mark)

    def remove_working_copy(self, name: str, mark: Mark) -> None:
        self._delete("remove_working_copy", machines.VMS, name, mark)

    def power(self, name: str, mark: Mark, on: bool) -> None:
        self._meet("power")
        with self._errors(f"the VM {name}"):
            machines.switch(self.store, name, mark, on)

    def shut_down(self, name: str, mark: Mark, *, force: bool = False) -> None:
        """Its guest systems obey at once."""
        self._meet("shut_down")
        with self._errors(f"the VM {name}"):
            machines.switch(self.store, name, mark, on=False)

    def _make(self, verb: str, room: str, spec: CloneSpec) -> VM:
        self._meet(verb)
        self._check(spec)
        with self._errors(f"the VM {spec.name}"):
            return machines.make(self.store, room, spec)

    def _delete(self, verb: str, room: str, name: str, mark: Mark) -> None:
        self._meet(verb)
        with self._errors(f"the VM {name}"):
            machines.delete(self.store, room, name, mark)

    def _check(self, spec: CloneSpec) -> None:
        network, known = spec.definition.network, self._networks()
        if network and known is not None and network not in known:
            raise Missing(
                f"The simulator has no virtual switch {network}.",
                code="NETWORK_MISSING",
                action="Add it to the host's settings, or choose another.",
            )
        if self.plan.now().full(1):
            self.plan.transfer("write", 0, 1)

    def _meet(self, step: str) -> Faults:
        with self._errors("its faults"):
            return self.plan.meet(step)

    def _errors(self, what: str) -> AbstractContextManager[None]:
        return errors(what, self.store.root.path)

    def _networks(self) -> tuple[str, ...] | None:
        named = [name.strip() for name in str(self.settings.get("networks") or "").split(",")]
        return tuple(name for name in named if name) or None

    def _machines(self, known: Iterable[Machine], *, stands_alone: bool = False) -> tuple[VM, ...]:
        return tuple(machines.describe(self.store, each, stands_alone=stands_alone) for each in known)

    def _images(self, known: Iterable[Held]) -> tuple[Image, ...]:
        stats = ((held, self.store.blobs.stat(held.id)) for held in known)
        return tuple(image_of(held, files.stamp_of(found)) for held, found in stats if found)


def _format_of(index: Index, ref: str) -> str:
    """Return the format of an image or of a VM's disk; SOURCE_MISSING for any other id."""
    for image in index.images:
        if image.id == ref:
            return "qcow2" if image.name.endswith(".qcow2") else "raw"
    for machine in index.vms:
        for blob in machine.blobs:
            if blob.id == ref:
                return blob.format
    raise Missing(
        "The simulator has no such disk image.", code="SOURCE_MISSING", action="Choose another source."
    )


def _hostile(name: str) -> VM:
    return VM(
        f"invented-{HOSTILE_NAMES.index(name)}", files.shown(name), problem="It is invented and has no disk."
    )
