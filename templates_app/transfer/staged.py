"""What is staged at a host for one disk, reached by leaves and under the lane's watch."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from .disk import Disk
from .extents import Run
from .ports import Host, Image, Sink
from .tuning import Tuning
from .verify import holds
from .watch import Watch


class Staged:
    """``check`` raises once the lane is closed; work of many calls asks it before each."""

    def __init__(
        self, disk: Disk, name: str, *, watch: Watch, check: Callable[[], None], tuning: Tuning
    ) -> None:
        self._disk = disk
        self._name = name
        self._sink: Sink | None = None
        self._watch, self._check, self._tuning = watch, check, tuning

    @property
    def begun(self) -> bool:
        return self._sink is not None

    @property
    def sink(self) -> Sink:
        if self._sink is None:
            raise RuntimeError("the target was not staged")
        return self._sink

    def begin(self, host: Host, mark: Any) -> None:
        """Begin, or go on with what the host kept."""
        with self._watch:
            self._sink = host.stage(self._name, self._disk.data.size, mark)

    def begin_anew(self, host: Host, mark: Any) -> None:
        self.abort()
        self.begin(host, mark)

    def reserve(self) -> None:
        """Tell the host what will be written, where that is known to be no zeros."""
        if not self._disk.table.known:
            return
        for run in self._disk.data.runs:
            self._check()
            start, stop = self._disk.data.span(*run)
            with self._watch:
                self.sink.reserve(start, stop - start)

    def clear(self, runs: Iterable[Run]) -> None:
        for run in runs:
            start, stop = self._disk.data.span(*run)
            for offset in range(start, stop, self._tuning.clear_bytes):
                self._check()
                with self._watch:
                    self.sink.hole(offset, min(self._tuning.clear_bytes, stop - offset))

    def flush(self) -> None:
        with self._watch:
            self.sink.flush()

    def expect(self, leaves: Run) -> None:
        start, stop = self._disk.data.span(*leaves)
        with self._watch:
            self.sink.expect(start, stop - start)

    def read_into(self, offset: int, view: memoryview) -> int:
        with self._watch:
            return self.sink.read_into(offset, view)

    def holds(self, leaves: Run, buffer: memoryview) -> bool:
        return holds(self.read_into, self._disk.table, leaves, buffer)

    def commit(self, name: str, mark: Any) -> Image:
        with self._watch:
            return self.sink.commit(name, mark)

    def abort(self) -> None:
        """Remove what is staged, if anything is."""
        if self._sink:
            with self._watch:
                self._sink.abort()

    def close(self) -> None:
        """Let go, keep what is staged."""
        if self._sink:
            with self._watch:
                self._sink.close()
