"""Streams go over holes, and lose nothing by it."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from providers_app.drivers import DriverError, Sink, Unreachable
from providers_app.drivers.libvirt import connection, uploads
from providers_app.drivers.libvirt.errors import errors
from tests.drivers.benches import IMAGE, NAME
from tests.drivers.copying import aligned
from tests.lab.bench import LibvirtBench

PIECE = 96 << 10
SIZE = 12 << 20
UPWARDS = tuple(range(1 << 20, SIZE, 1 << 20))
"""Offsets, each with a hole behind it."""


def write(sink: Sink, offset: int) -> bytes:
    data = random.Random(offset).randbytes(PIECE)
    sink.write(offset, aligned(data))
    return data


def expected(offsets: Sequence[int]) -> bytes:
    whole = bytearray(SIZE)
    for offset in offsets:
        whole[offset : offset + PIECE] = random.Random(offset).randbytes(PIECE)
    return bytes(whole)


def staged(bench: LibvirtBench) -> Path:
    (part,) = bench.connected().survey().staged
    return bench.path(part.ref)


@pytest.fixture
def streams(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The offsets at which streams into a volume were begun."""
    begun: list[int] = []
    real = uploads.Uploads._begin

    def begin(self: uploads.Uploads, offset: int) -> None:
        begun.append(offset)
        real(self, offset)

    monkeypatch.setattr(uploads.Uploads, "_begin", begin)
    return begun


def test_what_is_written_upwards_takes_one_stream_and_no_room_for_holes(
    bench: LibvirtBench, streams: list[int]
) -> None:
    sink = bench.connected().stage(NAME, SIZE, IMAGE)
    streams.clear()
    for offset in UPWARDS:
        write(sink, offset)
    sink.flush()
    assert streams == [0]
    assert staged(bench).read_bytes() == expected(UPWARDS)
    assert staged(bench).stat().st_blocks * 512 <= len(UPWARDS) * (PIECE + 4096)
    sink.abort()


def test_what_is_written_before_other_data_takes_nothing_of_that_away(
    bench: LibvirtBench, streams: list[int]
) -> None:
    order = [UPWARDS[at] for at in (4, 8, 2, 6, 3, 9, 0, 10)]
    sink = bench.connected().stage(NAME, SIZE, IMAGE)
    for offset in order:
        write(sink, offset)
    sink.flush()
    assert staged(bench).read_bytes() == expected(order)
    sink.abort()


def test_threads_that_write_and_flush_at_once_take_nothing_away_from_each_other(bench: LibvirtBench) -> None:
    sink = bench.connected().stage(NAME, SIZE, IMAGE)

    def some(offset: int) -> None:
        write(sink, offset)
        if offset % (3 << 20) == 0:
            sink.flush()

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(some, UPWARDS))
    sink.flush()
    assert staged(bench).read_bytes() == expected(UPWARDS)
    sink.abort()


def test_a_volume_is_as_long_as_its_image_after_each_flush(bench: LibvirtBench) -> None:
    sink = bench.connected().stage(NAME, SIZE, IMAGE)
    for offset in UPWARDS[:3]:
        write(sink, offset)
        write(sink, offset + 2 * PIECE)
        sink.flush()
        assert staged(bench).stat().st_size == SIZE
    sink.abort()


def test_what_broke_in_a_hole_is_taken_up_again_whole(bench: LibvirtBench) -> None:
    first = bench.connected().stage(NAME, SIZE, IMAGE)
    write(first, UPWARDS[0])
    first.flush()
    for offset in UPWARDS[1:4]:
        write(first, offset)
    first.close()
    assert staged(bench).stat().st_size < SIZE
    second = bench.connected().stage(NAME, SIZE, IMAGE)
    assert second.token == first.token
    assert staged(bench).stat().st_size == SIZE
    for offset in UPWARDS[1:]:
        write(second, offset)
    second.flush()
    assert bench.path(second.commit(NAME, IMAGE).ref).read_bytes() == expected(UPWARDS)


@pytest.mark.parametrize("filled", [False, True], ids=["holes", "data"])
def test_what_lies_between_expected_pieces_is_passed_over(bench: LibvirtBench, filled: bool) -> None:
    sink = bench.connected().stage(NAME, SIZE, IMAGE)
    for offset in UPWARDS:
        write(sink, offset)
    sink.flush()
    if filled:  # as on a file system that knows no holes
        content = staged(bench).read_bytes()
        staged(bench).write_bytes(content)
    sink.expect(UPWARDS[0], SIZE - UPWARDS[0])
    for offset in (*UPWARDS[:3], UPWARDS[3] + 4096, *UPWARDS[6:]):
        there = aligned(bytes(PIECE - 4096))
        assert sink.read_into(offset, there) == PIECE - 4096
        assert bytes(there) == expected(UPWARDS)[offset : offset + PIECE - 4096]
    sink.abort()


def test_a_host_that_is_lost_while_it_is_read_back_is_noticed(bench: LibvirtBench) -> None:
    sink = bench.connected().stage(NAME, SIZE, IMAGE)
    for offset in range(0, SIZE, 1 << 20):
        sink.write(offset, aligned(os.urandom(1 << 20)))
    sink.flush()
    daemon = bench.host._daemon()
    sink.expect(1 << 20, SIZE - (1 << 20))
    assert sink.read_into(1 << 20, aligned(bytes(4096))) == 4096
    os.kill(daemon, signal.SIGSTOP)  # before it has sent all of it
    bench.host.kill_daemon()
    there = aligned(bytes(4096))
    with pytest.raises(Unreachable):
        any(not sink.read_into(offset, there) for offset in range((1 << 20) + 4096, SIZE, 4096))
    bench.host.wait()
    sink.close()


def test_a_connection_that_is_lost_before_it_is_kept_alive_is_one_to_a_host_that_is_gone(
    bench: LibvirtBench,
) -> None:
    link = connection.library().openAuth(bench.host.uri, [[], None, None], 0)
    bench.host.kill_daemon()
    bench.host.wait()
    while link.isAlive():
        time.sleep(0.01)
    with pytest.raises(Unreachable), errors("the connection", "alpha"):
        link.setKeepAlive(5, 3)


def test_after_a_fault_nothing_counts_as_taken(bench: LibvirtBench) -> None:
    sink = bench.connected().stage(NAME, SIZE, IMAGE)
    write(sink, UPWARDS[0])
    bench.host.kill_daemon()
    for attempt in (sink.flush, lambda: write(sink, UPWARDS[1]), sink.flush):
        with pytest.raises(DriverError):
            attempt()
    bench.host.wait()
    sink.close()
