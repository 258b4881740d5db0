"""What a lane needs of its run."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Protocol

from .convoy import Convoy
from .disk import Disk
from .events import Event
from .limiter import Bucket
from .ports import Drivers
from .tuning import Tuning

if TYPE_CHECKING:
    from .lane import Lane


class Trip(Protocol):
    """``lock`` guards the state of all lanes and convoys."""

    lock: threading.Lock
    drivers: Drivers
    bucket: Bucket
    tuning: Tuning
    seals: bool

    @property
    def few(self) -> bool: ...
    @property
    def writers(self) -> int: ...
    def emit(self, event: Event) -> None: ...
    def disks_for(self, lane: Lane) -> list[Disk]: ...
    def await_digests(self, lane: Lane) -> None: ...
    def check_source(self) -> None: ...
    def first_convoy(self) -> Convoy: ...
    def look_at_departure(self) -> None: ...
