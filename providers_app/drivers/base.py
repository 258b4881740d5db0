"""The driver contract: what rasweb asks of a hypervisor. Standard library only.

A driver is one folder with ``driver.py`` (the verbs), ``errors.py`` (their errors become ours, in one place) and
``fields.py`` (the settings it needs). What crosses this edge are the small frozen dataclasses below, never an
object of a hypervisor's own library. What differs between hypervisors is said by :class:`Can`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from threading import Event
from typing import Any, ClassVar, Self

from .errors import SHUT_OUT, Refused


class Can(StrEnum):
    """What a driver, or one location of it, is able to do."""

    FULL_CLONE = "full_clone"
    LINKED_CLONE = "linked_clone"
    POWER = "power"


@dataclass(frozen=True)
class Mark:
    """Who made an object on a host: stored with it, compared before anything is deleted or replaced.

    ``kind`` is ``image``, ``guest`` or ``working-copy``; ``owner`` is the template's or guest's key.
    """

    installation: str
    kind: str
    owner: str
    version: int = 0
    disk: int = 0
    digest: str = ""

    def owns(self, other: Mark | None) -> bool:
        """Tell whether ``other`` marks an object of the same owner, of whatever version."""
        return other is not None and (self.installation, self.kind, self.owner) == (
            other.installation,
            other.kind,
            other.owner,
        )


@dataclass(frozen=True)
class Disk:
    """One disk image of a VM. ``ref`` is the host's own id of it; sizes in bytes; ``format`` is raw or qcow2.

    ``size`` is the length of the file, ``virtual_size`` what a guest sees, ``allocated`` what it takes on the host.
    """

    ref: str
    name: str
    format: str
    size: int
    virtual_size: int
    allocated: int


@dataclass(frozen=True)
class VM:
    """A virtual machine of a host. ``power`` is on, off or unknown; ``problem`` says why it can not be a source.

    ``hardware`` is what of its virtual hardware may travel, in the words of its kind; see :class:`Definition`.
    """

    ref: str
    name: str
    disks: tuple[Disk, ...] = ()
    memory_mib: int = 0
    vcpus: int = 0
    network: str = ""
    power: str = "off"
    mark: Mark | None = None
    problem: str = ""
    hardware: str = ""


@dataclass(frozen=True)
class Image:
    """A published template image. ``stamp`` changes whenever its content may have changed (size, times, inode …)."""

    ref: str
    name: str
    size: int
    stamp: str
    mark: Mark | None = None


@dataclass(frozen=True)
class Survey:
    """All that a health check and the checks before a copy need, read in one call.

    ``hardware`` is the virtual hardware it offers, in the words of its kind; :meth:`Driver.misfits` reads them.
    ``host_id`` is the same however often a host is registered. ``networks`` is None where any name will do.
    ``staged`` are images under their side names: ``name`` is what they would be published as, ``mark`` whose they are.
    """

    host_id: str
    can: frozenset[Can] = frozenset()
    vms: tuple[VM, ...] = ()
    guests: tuple[VM, ...] = ()
    images: tuple[Image, ...] = ()
    staged: tuple[Image, ...] = ()
    networks: tuple[str, ...] | None = None
    free_bytes: int = 0
    total_bytes: int = 0
    hardware: str = ""


@dataclass(frozen=True)
class Misfit:
    """What a host lacks for a VM: a sentence that names both, and what to do."""

    text: str
    action: str


@dataclass(frozen=True)
class Definition:
    """The portable part of a VM's definition.

    ``hardware`` is a text of the kind's own, checked by it on each use; empty for its usual hardware.
    """

    memory_mib: int = 1024
    vcpus: int = 1
    network: str = ""
    hardware: str = ""


@dataclass(frozen=True)
class CloneSpec:
    """One guest VM to make from published images of its own host.

    ``images`` are the refs of the version's published images, in disk order; ``formats`` their formats.
    """

    name: str
    images: tuple[str, ...]
    formats: tuple[str, ...]
    linked: bool
    definition: Definition
    mark: Mark


@dataclass(frozen=True)
class Extent:
    """A run of bytes of a disk image: data, or a hole that reads as zeros. Offsets and lengths in bytes."""

    offset: int
    length: int
    data: bool = True


class Source(ABC):
    """One disk image that is read. Thread-safe for ``read_into``."""

    size: int

    @abstractmethod
    def extents(self) -> Iterator[Extent]:
        """Cover the whole image in order; neighbouring extents differ in kind.

        A source without a map yields one data extent.
        """

    def expect(self, offset: int, length: int) -> None:  # noqa: B027 - a hint, no duty
        """Take note that the thread is about to read this range or parts of it, upwards."""

    @abstractmethod
    def read_into(self, offset: int, buffer: memoryview) -> int:
        """Fill ``buffer`` from ``offset``; return the bytes read, short only at the end of the image."""

    def read_stored(self, offset: int, buffer: memoryview) -> int:
        """The same, from what the host stores and not from its memory, where it can tell them apart."""
        return self.read_into(offset, buffer)

    @abstractmethod
    def stamp(self) -> str:
        """Change whenever the content may have changed; raise :class:`Missing` when the image is gone."""

    @abstractmethod
    def close(self) -> None: ...


class Sink(ABC):
    """One image on its way to one host, under a side name that nobody takes for the image.

    A fresh sink reads as zeros everywhere. ``token`` names the staged file; it is the same when the next sink for
    the same name goes on with what is there, and another when it begins anew. ``write``, ``flush`` and ``read_into``
    are called from several threads at once.
    """

    token: str
    sequential: ClassVar[bool] = False
    """Whether it is fastest with one thread that writes, while others read back."""

    def reserve(self, offset: int, length: int) -> None:  # noqa: B027 - a hint, no duty
        """Take note that this range is about to be written. A host that gains nothing by it does nothing."""

    def copy_from(self, ref: str, beat: Callable[[int], None]) -> bool:
        """Fill a fresh sink with another disk of the same host, by the host's own means: no byte travels.

        ``ref`` is a published image or a VM's disk of the same size. ``beat`` takes the bytes copied so far, is called
        at least every second while the host works, and may raise to end the copy; what is staged then is as
        undefined as after a crash, and so is ``token`` until this returns. False, with the sink still reading as
        zeros, where the host can not do it or gains nothing by it. One that was written to is cleared first, or False.
        """
        return False

    @abstractmethod
    def write(self, offset: int, data: memoryview) -> None: ...

    @abstractmethod
    def hole(self, offset: int, length: int) -> None:
        """Make a range read as zeros, whatever an earlier attempt wrote there."""

    @abstractmethod
    def flush(self) -> None:
        """Return when everything written so far survives a crash of the host."""

    def expect(self, offset: int, length: int) -> None:  # noqa: B027 - a hint, no duty
        """Take note that the thread is about to read back this range or parts of it, upwards, all written before."""

    @abstractmethod
    def read_into(self, offset: int, buffer: memoryview) -> int:
        """Read back what the host holds, past caches where it can."""

    @abstractmethod
    def commit(self, name: str, mark: Mark) -> Image:
        """Flush, publish as ``name`` by rename without replace, flush the folder. PATH_CONFLICT where it is taken.

        ``name`` and ``mark`` are those of :meth:`Driver.stage`, now with the digest filled in.
        """

    @abstractmethod
    def abort(self) -> None:
        """Remove what was staged; BUSY while the host itself works on it. Safe twice and after a failure."""

    @abstractmethod
    def close(self) -> None:
        """Let go and keep what was staged, for a later attempt. Safe twice and after commit or abort."""


class Driver(ABC):
    """One host. Use as a context manager: ``with open_driver(kind, settings, secrets) as host``.

    Every verb may raise a :class:`DriverError` and nothing else that is expected. All verbs are idempotent: asked
    again after a crash they finish what was begun.
    """

    kind: ClassVar[str]
    label: ClassVar[str]
    can: ClassVar[frozenset[Can]] = frozenset()
    publishes: ClassVar[str] = ""
    """The format of published images; empty where it is that of the disk they are made of, byte by byte."""
    watchable: ClassVar[bool] = False
    flushes: ClassVar[bool] = True
    """Whether what was published is on the host's disks, so that it outlives a power cut."""

    def __init__(self, settings: Mapping[str, Any], secrets: Mapping[str, str] | None = None) -> None:
        self.settings = settings
        self.secrets = secrets or {}

    def __enter__(self) -> Self:
        try:
            self.connect()
        except Refused as refused:
            if refused.code in SHUT_OUT:
                refused.permanent = False
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def location(self, ref: str) -> str:
        """Say where an administrator finds the object ``ref`` on the host; asks nobody."""
        return ref

    @classmethod
    def misfits(cls, offer: str, wanted: Definition, host: str) -> Sequence[Misfit]:
        """Say what ``host`` lacks for VMs like ``wanted`` by the ``offer`` of its survey; asks nobody."""
        return ()

    @abstractmethod
    def connect(self) -> None: ...

    @abstractmethod
    def close(self) -> None: ...

    @abstractmethod
    def register(self) -> str:
        """Prepare the host on being added, as little as possible; return its ``host_id``. Idempotent."""

    @abstractmethod
    def survey(self) -> Survey: ...

    def watch(self, tell: Callable[[], None], ended: Event) -> None:
        """Call ``tell`` once it listens, and then whenever anything may have changed on the host.

        Needs no :meth:`connect`, and waits for a silent host for as long as it is silent. Returns soon after ``ended``
        is set; raises :class:`Unreachable` when the host is lost. A call of ``tell`` is a hint and says nothing about
        what changed. Only of kinds that are ``watchable``.
        """
        raise Refused(f"{self.label} hosts tell nothing by themselves.", code="PREREQUISITE")

    @abstractmethod
    def open_source(self, ref: str) -> Source:
        """Open a VM's disk or a published image, for reading what is published of it: see :attr:`publishes`.

        SOURCE_MISSING; PREREQUISITE for a hostile header, and for what can not be read as the published format.
        """

    @abstractmethod
    def stage(self, name: str, size: int, mark: Mark) -> Sink:
        """Begin an image that will be published as ``name``, or go on with what an earlier attempt left.

        A ``{digest12}`` in ``name`` stands for what is not known before all bytes are read; ``mark.digest`` is then
        empty. PATH_CONFLICT when ``name`` is taken by something that does not carry an equal mark. NO_SPACE at once
        where the host can tell. A staged file that another process still holds is left alone and a new one begun.
        """

    @abstractmethod
    def confirm(self, name: str, mark: Mark, stamp: str) -> None:
        """Take the published image ``name`` for intact as it is with this stamp: its content was just compared.

        Touches only what carries our mark (NOT_OURS). CONTENT_CHANGED when its stamp is another one by now.
        """

    @abstractmethod
    def remove(self, name: str, mark: Mark, *, force: bool = False) -> None:
        """Delete the published image ``name`` and everything staged for it. What is not there is removed.

        Touches only what carries our mark (NOT_OURS). IN_USE while a clone stands on it; CONTENT_CHANGED when it
        was changed since publishing, unless ``force``.
        """

    @abstractmethod
    def discard(self, name: str, mark: Mark) -> None:
        """Delete everything staged for ``name``; an image that is published already stays. Idempotent.

        Touches only what carries our mark. IN_USE while another process holds it.
        """

    @abstractmethod
    def clone(self, spec: CloneSpec) -> VM:
        """Make a guest, or return it when it is there already with an equal mark.

        PATH_CONFLICT for a foreign one, and for one of ours that was made from other images.
        """

    @abstractmethod
    def recreate(self, spec: CloneSpec) -> VM:
        """Give an existing guest new disks: made under a side name first, swapped, the old ones deleted last.

        An error before the swap leaves the guest as it was. A guest that is gone is made. The guest keeps its name.
        """

    @abstractmethod
    def delete_guest(self, name: str, mark: Mark) -> None:
        """Delete a guest and its disks; NOT_OURS for a foreign one; a guest that is gone is deleted."""

    def power(self, name: str, mark: Mark, on: bool) -> None:
        """Start or stop a guest or working copy, whatever it takes. Only where the location can :attr:`Can.POWER`."""
        raise Refused(f"{self.label} hosts have no power switch.", code="PREREQUISITE")

    def shut_down(self, name: str, mark: Mark, *, force: bool = False) -> None:
        """Ask a guest or working copy to shut down, or with ``force`` switch it off; needs :attr:`Can.POWER`."""
        raise Refused(f"{self.label} hosts have no power switch.", code="PREREQUISITE")

    @abstractmethod
    def make_working_copy(self, spec: CloneSpec) -> VM:
        """Make a startable VM ``spec.name`` with full copies of the images, for the administrator to change."""

    @abstractmethod
    def remove_working_copy(self, name: str, mark: Mark) -> None:
        """Delete a working copy; NOT_OURS for a foreign VM; one that is gone is removed."""
