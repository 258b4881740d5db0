"""A host that runs libvirt: images are volumes of one storage pool, guests are domains with our mark in them."""

from __future__ import annotations

from collections.abc import Callable
from threading import Event

from providers_app.drivers import files
from providers_app.drivers.base import VM, CloneSpec, Definition, Driver, Mark, Misfit, Sink, Source, Survey
from providers_app.drivers.errors import Missing

from . import disks, events, fit, images, listing, machines, staging, uri
from .host import Host


class Libvirt(Driver):
    """One libvirt daemon with QEMU and one of its storage pools."""

    kind = "libvirt"
    label = "libvirt"
    can = listing.ABILITIES
    publishes = "raw"
    watchable = True
    flushes = False

    _host: Host | None = None

    @property
    def host(self) -> Host:
        if self._host is None:
            raise RuntimeError("The driver is not connected")
        return self._host

    def connect(self) -> None:
        host = Host(self.settings)
        try:
            host.check_known(str(self.settings.get("host_id") or ""))
        except BaseException:
            host.close()
            raise
        self._host = host

    def close(self) -> None:
        if self._host is not None:
            self._host.close()
            self._host = None

    def register(self) -> str:
        host = Host(self.settings)
        try:
            host.register()
            return host.id
        finally:
            host.close()

    def location(self, ref: str) -> str:
        return f"{uri.label(self.settings)}: {self.settings.get('pool', '')}/{ref}"

    @classmethod
    def misfits(cls, offer: str, wanted: Definition, host: str) -> tuple[Misfit, ...]:
        return tuple(fit.misfits(offer, wanted, host))

    def survey(self) -> Survey:
        return listing.survey(self.host)

    def watch(self, tell: Callable[[], None], ended: Event) -> None:
        events.watch(self.settings, tell, ended)

    def open_source(self, ref: str) -> Source:
        self.host.pool.refresh()
        volume = None if ref.startswith(".") else self.host.pool.volume(ref)
        if volume is None:
            raise disks.source_missing(self.host, files.shown(ref))
        try:
            return disks.open_disk(self.host, volume)
        except Missing as error:
            raise disks.source_missing(self.host, files.shown(ref)) from error

    def stage(self, name: str, size: int, mark: Mark) -> Sink:
        return staging.stage(self.host, name, size, mark)

    def confirm(self, name: str, mark: Mark, stamp: str) -> None:
        images.confirm(self.host, name, mark, stamp)

    def remove(self, name: str, mark: Mark, *, force: bool = False) -> None:
        images.remove(self.host, name, mark, force=force)

    def discard(self, name: str, mark: Mark) -> None:
        images.discard(self.host, name, mark)

    def clone(self, spec: CloneSpec) -> VM:
        return machines.make(self.host, spec)

    def recreate(self, spec: CloneSpec) -> VM:
        return machines.remake(self.host, spec)

    def delete_guest(self, name: str, mark: Mark) -> None:
        machines.delete(self.host, name, mark)

    def power(self, name: str, mark: Mark, on: bool) -> None:
        machines.switch(self.host, name, mark, on)

    def shut_down(self, name: str, mark: Mark, *, force: bool = False) -> None:
        machines.shut_down(self.host, name, mark, force=force)

    def make_working_copy(self, spec: CloneSpec) -> VM:
        return machines.make(self.host, spec)

    def remove_working_copy(self, name: str, mark: Mark) -> None:
        machines.delete(self.host, name, mark)
