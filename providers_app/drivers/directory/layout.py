"""A host's folder: the marker that tells it from an empty mount point, and its rooms."""

from __future__ import annotations

import errno
import json
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from providers_app.drivers.errors import Missing, Refused, Unreachable
from providers_app.drivers.files import Folder, Root, gone, open_below, parse_json, shown

from .errors import errors

MARKER = ".rasweb-host.json"
LOCK = ".rasweb.lock"
ROOMS = ("vms", "images", "guests")


class Host:
    """The open folder of a registered host. ``id`` is what its marker says."""

    vms: Folder
    images: Folder
    guests: Folder

    def __init__(self, root: Root, expected: str = "") -> None:
        self.root = root
        self._open = ExitStack()
        with errors(f"its marker {MARKER}", root.path):
            self.id = _identity(root, expected)
        for room in ROOMS:
            setattr(self, room, self._open.enter_context(_room(root, room)))

    @property
    def path(self) -> str:
        return self.root.path

    def close(self) -> None:
        self._open.close()
        self.root.close()

    def folder_of(self, ref: str) -> Folder:
        """Open the folder in which the image or VM's disk ``ref`` lies."""
        *inner, _ = ref.split("/")
        if inner == ["images"]:
            return self.images.again()
        if len(inner) == 2 and inner[0] == "vms":
            return self.vms.folder(inner[1])
        raise FileNotFoundError(errno.ENOENT, "no such image")

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold while names are checked and changed. Never during work that takes as long as an image is large."""
        self.root.check_present()
        with self.root.lock(LOCK):
            yield


def open_root(settings: Mapping[str, Any]) -> Root:
    """Open the folder of the settings, which must lie below an allowed root."""
    path, roots = str(settings.get("path", "")), settings.get("roots", ())
    with errors("the folder itself", shown(path, 300)):
        return open_below(path, _strings(roots))


def open_host(settings: Mapping[str, Any]) -> Host:
    """Open a registered host; Unreachable when its folder or marker is not there."""
    try:
        root = open_root(settings)
    except Missing:
        raise gone(shown(str(settings.get("path", "")), 300)) from None
    return Host(root, str(settings.get("host_id") or ""))


def register(root: Root) -> str:
    """Make the marker and the rooms where they are missing; return the host's id."""
    with errors("its marker and folders", root.path):
        for room in ROOMS:
            if root.stat(room) is None:
                root.make_folder(room)
        with root.lock(LOCK):
            if root.stat(MARKER) is None:
                known = {"format": 1, "id": str(uuid.uuid4())}
                root.create(MARKER, json.dumps(known).encode() + b"\n", 0o644)
        root.sync()
        for room in ROOMS:
            _room(root, room).close()
        return _identity(root, "")


def _identity(root: Root, expected: str) -> str:
    try:
        known = parse_json(root.read(MARKER))
        found = str(uuid.UUID(known["id"])) if known["format"] == 1 else ""
    except FileNotFoundError:
        raise Unreachable(
            f"The host folder {root.path} has no marker {MARKER}: the host is not mounted.",
            action="Mount it. If the folder is really new and empty, add the host again.",
        ) from None
    except (ValueError, KeyError, TypeError, AttributeError):
        found = ""
    if not found:
        raise Refused(
            f"The marker {MARKER} in the host folder {root.path} can not be read.",
            code="PREREQUISITE",
            action="Restore the marker from a backup.",
        )
    if expected and found != expected:
        raise Unreachable(
            f"Another host's folder is mounted at {root.path}.",
            action="Mount the right one, or correct the path.",
        )
    return found


def _room(root: Root, name: str) -> Folder:
    try:
        with errors(f"the folder {name}", root.path):
            return root.folder(name)
    except Missing:
        raise Unreachable(
            f"The host folder {root.path} has no folder {name} any more.",
            action="Put it back, or make an empty one if its content is really gone.",
        ) from None


def _strings(given: object) -> Sequence[str]:
    return [str(item) for item in given] if isinstance(given, (list, tuple)) else []
