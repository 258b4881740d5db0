"""What stands on what on a host: asked before anything is deleted that others may need.

Files are told apart by their names alone: one folder has many paths (links, mounts, ``..``), while the names of what we
make carry a token and are the only ones of their kind.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from posixpath import basename

from providers_app.drivers import files

from . import domains, notes, storage
from .host import Host
from .storage import Facts


@dataclass(frozen=True)
class Uses:
    """``owners`` are the VMs by the paths of the files they use; ``volumes`` are those of all active pools.

    ``busy`` are pools that could not be looked at for copies of their own. ``hidden``: VMs and volumes that use a file
    in no pool, and its path: no host says what such a file stands on.
    """

    owners: Mapping[str, set[str]]
    volumes: Sequence[Facts]
    busy: Sequence[str]
    hidden: Sequence[tuple[str, str]]

    @classmethod
    def on(cls, host: Host) -> Uses:
        volumes, busy = storage.everywhere(host.connection, host.where)
        known = {facts.path for facts in volumes}
        owners = defaultdict[str, set[str]](set)
        local = [each for each in volumes if each.backing.startswith("/") and each.backing_format != "raw"]
        layered = [(each.name, each.backing) for each in local]
        for vm in domains.in_use(host):
            for path in vm.paths:
                owners[path].add(vm.name)
            layered += [(vm.name, path) for path in vm.layered]
        return cls(owners, volumes, busy, [(user, path) for user, path in layered if path not in known])

    def of(self, path: str) -> list[str]:
        """Who uses a volume: VMs that have it as a disk or below one, and other volumes that stand on it."""
        name, standing = basename(path), set[str]()
        for used, vms in self.owners.items():
            standing |= vms if basename(used) == name else set()
        for each in self.volumes:
            if basename(each.backing) == name and not notes.is_mask(each.name):
                standing |= self.owners.get(each.path, {each.name})
        return sorted(map(files.shown, standing))
