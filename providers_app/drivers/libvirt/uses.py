"""What stands on what on a host: asked before anything is deleted that others may need."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from providers_app.drivers import files

from . import domains, notes, storage
from .host import Host
from .storage import Facts


@dataclass(frozen=True)
class Uses:
    """``owners`` are the VMs by the paths of the files they use; ``volumes`` are those of all active pools.

    ``hidden``: VM and path of disks that may stand on others, but lie in no pool, so that no host says on what.
    """

    owners: Mapping[str, set[str]]
    volumes: Sequence[Facts]
    hidden: Sequence[tuple[str, str]]

    @classmethod
    def on(cls, host: Host) -> Uses:
        volumes = list(storage.everywhere(host.connection, host.where))
        known = {facts.path for facts in volumes}
        owners, hidden = defaultdict[str, set[str]](set), list[tuple[str, str]]()
        for vm in domains.in_use(host):
            for path in vm.paths:
                owners[path].add(vm.name)
            hidden += [(vm.name, path) for path in vm.layered if path not in known]
        return cls(owners, volumes, hidden)

    def of(self, path: str) -> list[str]:
        """Who uses a volume: VMs that have it as a disk or below one, and other volumes that stand on it."""
        standing = set(self.owners.get(path, ()))
        for each in self.volumes:
            if each.backing == path and not notes.is_mask(each.name):
                standing |= self.owners.get(each.path, {each.name})
        return sorted(files.shown(name) for name in standing)
