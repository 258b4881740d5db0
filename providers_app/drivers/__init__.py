"""The kinds of hypervisors, loaded on first use, so that a site needs only the libraries of the kinds it has."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from .base import (
    VM,
    Can,
    CloneSpec,
    Definition,
    Disk,
    Driver,
    Extent,
    Image,
    Mark,
    Misfit,
    Sink,
    Source,
    Survey,
)
from .errors import DriverError, Missing, NoSpace, Refused, Unreachable
from .setting import Field

KINDS: Mapping[str, str] = {
    "directory": "providers_app.drivers.directory.driver.Directory",
    "libvirt": "providers_app.drivers.libvirt.driver.Libvirt",
    "simulator": "providers_app.drivers.simulator.driver.Simulator",
}


def load(kind: str) -> type[Driver]:
    """Return the class of a kind; PREREQUISITE for one that is not known here."""
    module, _, name = _path(kind).rpartition(".")
    found: type[Driver] = getattr(import_module(module), name)
    return found


def fields(kind: str) -> tuple[Field, ...]:
    """Return the settings a kind needs, without loading the driver itself."""
    folder = _path(kind).rsplit(".", 2)[0]
    found: tuple[Field, ...] = import_module(f"{folder}.fields").FIELDS
    return found


def open_driver(kind: str, settings: Mapping[str, Any], secrets: Mapping[str, str] | None = None) -> Driver:
    """Return a driver that is not connected yet; use it as a context manager."""
    return load(kind)(settings, secrets)


def _path(kind: str) -> str:
    try:
        return KINDS[kind]
    except KeyError:
        raise Refused(
            f"Hosts of the kind {kind!r} are not known to this installation.",
            code="PREREQUISITE",
            action="Choose one of: " + ", ".join(sorted(KINDS)) + ".",
        ) from None


__all__ = [
    "KINDS",
    "VM",
    "Can",
    "CloneSpec",
    "Definition",
    "Disk",
    "Driver",
    "DriverError",
    "Extent",
    "Field",
    "Image",
    "Mark",
    "Misfit",
    "Missing",
    "NoSpace",
    "Refused",
    "Sink",
    "Source",
    "Survey",
    "Unreachable",
    "fields",
    "load",
    "open_driver",
]
