"""All cases by the names they are chosen by, each with its share of the time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

from .breaks import links, resume, slow_lane
from .delta import delta, delta_of_shared_blocks
from .fanout import disk, fan_out
from .hosts import libvirt_hosts
from .rounds import Case
from .sparse import holes, small, virtual

Making = Callable[[Path, int], AbstractContextManager[Case]]


def _with(share: float, make: Callable[..., AbstractContextManager[Case]], **fields: object) -> Making:
    return partial(make, share=share, **fields)


CASES: Mapping[str, list[Making]] = {
    "disk": [_with(0.02, disk)],
    "fanout": [
        _with(0.10, fan_out, targets=1),
        _with(0.10, fan_out, targets=4),
        _with(0.09, fan_out, targets=8),
    ],
    "libvirt": [
        _with(0.08, libvirt_hosts, times=2),  # as the goal beside cp was found
        _with(0.06, libvirt_hosts, bits=10**9),
        _with(0.02, libvirt_hosts, many_holes=True),
    ],
    "delta": [
        _with(0.05, delta, targets=1, clustered=True),
        _with(0.05, delta, targets=1, clustered=False),
        _with(0.05, delta, targets=4, clustered=True),
        _with(0.05, delta, targets=4, clustered=False),
    ],
    "resume": [_with(0.04, resume)],
    "slow": [_with(0.05, slow_lane), _with(0.03, links)],
    "small": [_with(0.05, small)],
    "holes": [_with(0.02, holes)],
    "memory": [_with(0.02, virtual, times=1), _with(0.02, virtual, times=16)],
    "shared": [
        _with(0.02, delta_of_shared_blocks, targets=1, clustered=True),
        _with(0.02, delta_of_shared_blocks, targets=1, clustered=False),
        _with(0.03, delta_of_shared_blocks, targets=4, clustered=True),
        _with(0.03, delta_of_shared_blocks, targets=4, clustered=False),
    ],
}
