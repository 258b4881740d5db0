"""Images of the simulator, with its faults: what is read, and what is on its way there."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace

from providers_app.drivers import files
from providers_app.drivers.base import Image, Mark
from providers_app.drivers.blocks import STEP, Errors, FileSink, FileSource
from providers_app.drivers.simulator import images
from providers_app.drivers.simulator.faults import Plan
from providers_app.drivers.simulator.index import Held, Store


class SimulatorSource(FileSource):
    """An image that is read, with faults."""

    def __init__(self, store: Store, blob: str, errors: Errors, plan: Plan) -> None:
        super().__init__(store.blobs, blob, errors)
        self._plan = plan
        self._read = 0

    def _fill(self, offset: int, buffer: memoryview, *, cached: bool) -> int:
        self._plan.transfer("read", self._read, len(buffer))
        count = super()._fill(offset, buffer, cached=cached)
        self._read += count
        return count

    def stamp(self) -> str:
        self._plan.meet("read")
        return super().stamp()


class SimulatorSink(FileSink):
    """An image that is written, with faults. Publishing it is one change of the index."""

    def __init__(self, store: Store, held: Held, fd: int, errors: Errors, plan: Plan) -> None:
        super().__init__(fd, held.id, errors)
        self._store = store
        self._held = held
        self._plan = plan
        self._written = 0
        self._open = True

    def write(self, offset: int, data: memoryview) -> None:
        faults = self._plan.transfer("write", self._written, len(data))
        super().write(offset, data)
        self._written += len(data)
        if faults.corrupt is not None:
            self._corrupt(faults.corrupt, offset, data)

    def _corrupt(self, at: int, offset: int, data: memoryview) -> None:
        if offset <= at < offset + len(data):
            os.pwrite(self._file.fd, bytes([data[at - offset] ^ 0xFF]), at)

    def copy_from(self, ref: str, beat: Callable[[int], None]) -> bool:
        faults = self._plan.transfer("copy", 0, 0)
        before = 0

        def meet(copied: int) -> None:
            nonlocal before
            self._plan.transfer("copy", before, copied - before)
            before = copied
            beat(copied)

        made = self.fill_from(self._store.blobs, ref, meet, STEP)
        if made and faults.corrupt is not None and (old := os.pread(self._file.fd, 1, faults.corrupt)):
            os.pwrite(self._file.fd, bytes([old[0] ^ 0xFF]), faults.corrupt)
        return made

    def flush(self) -> None:
        self._plan.meet("flush")
        super().flush()
        self._store.root.check_present()

    def read_into(self, offset: int, buffer: memoryview) -> int:
        self._plan.transfer("read", 0, len(buffer))
        return super().read_into(offset, buffer)

    def commit(self, name: str, mark: Mark) -> Image:
        self._plan.meet("commit")
        if not files.resolves(self._held.name, name):
            raise ValueError(f"{name} was not staged as {self._held.name}")
        files.check_name(name)
        with self._errors():
            files.do(os.fsync, self._file.fd)
            with self._store.change() as index:
                held = images.taken(self._store, index, name, mark)
                index.staged = tuple(other for other in index.staged if other.id != self._held.id)
                if held is None:
                    stamp = files.stamp_of(os.fstat(self._file.fd))
                    held = replace(self._held, name=name, mark=mark, stamp=stamp)
                    index.images += (held,)
                else:
                    index.trash += (self._held.id,)
        self.close()
        return image_of(held, held.stamp)

    def abort(self) -> None:
        if self._open:
            with self._errors():
                files.do(os.ftruncate, self._file.fd, 0)  # room for a new index may be what is missing
                self._store.blobs.unlink(self._held.id)
                self._store.tidy()
        self.close()

    def close(self) -> None:
        self._open = False
        super().close()


def image_of(held: Held, stamp: str) -> Image:
    return Image(held.id, held.name, held.size, stamp, held.mark)
