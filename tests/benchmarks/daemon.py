"""What libvirt's daemons need for a copy, without an engine: from memory, to nowhere, nothing hashed or compared.

``python -m tests.benchmarks.daemon BYTES URI POOL [URI POOL …]`` sends as many bytes to a new volume ``copy.raw`` of
each pool, fetches what was acknowledged at the same time by another connection, and prints the seconds.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from queue import SimpleQueue

from providers_app.drivers.libvirt.connection import connect
from providers_app.drivers.libvirt.downloads import Downloads
from providers_app.drivers.libvirt.storage import Pool
from providers_app.drivers.libvirt.uploads import SEGMENT, Uploads

VOLUME = "copy.raw"
_PIECE = 4 << 20


def there_and_back(uri: str, pool: str, size: int) -> None:
    out, back = (Pool(connect(uri, uri), pool, uri) for _ in range(2))
    volume = out.create(VOLUME, size)
    uploads = Uploads(out.connection, volume)
    acknowledged: SimpleQueue[int] = SimpleQueue()
    reader = threading.Thread(target=_fetch, args=(back, volume.opening, size, acknowledged))
    reader.start()
    data = memoryview(bytearray(os.urandom(_PIECE)))
    for offset in range(0, size, _PIECE):
        uploads.write(offset, data[: size - offset])
        if (end := min(size, offset + _PIECE)) % SEGMENT == 0 or end == size:
            uploads.finish()
            acknowledged.put(end)
    reader.join()


def _fetch(pool: Pool, opening: threading.Lock, size: int, acknowledged: SimpleQueue[int]) -> None:
    volume = pool.volume(VOLUME)
    if volume is None:
        raise RuntimeError("the volume is not there")
    volume.opening = opening
    downloads, buffer, done = Downloads(pool.connection, volume), memoryview(bytearray(1 << 20)), 0
    while done < size:
        end = acknowledged.get()
        downloads.expect(done, end - done)
        while done < end:
            done += downloads.read(done, buffer[: end - done])


def main(size: int, *hosts: str) -> None:
    begun = time.perf_counter()
    threads = [
        threading.Thread(target=there_and_back, args=(uri, pool, size))
        for uri, pool in zip(hosts[::2], hosts[1::2], strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(time.perf_counter() - begun)


if __name__ == "__main__":
    main(int(sys.argv[1]), *sys.argv[2:])
