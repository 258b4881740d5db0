"""What a stranger sends to the really started product, over a socket of its own."""

import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from urllib.parse import urlsplit

import pytest

from tests.product import Product

pytestmark = pytest.mark.product

MIB = 1 << 20
LONGEST_SECONDS = 30.0


@pytest.fixture(scope="module")
def running(tmp_path_factory) -> Iterator[Product]:
    product = Product(tmp_path_factory.mktemp("running") / "data")
    yield product.start()
    product.close()


@contextmanager
def connected(product: Product) -> Iterator[socket.socket]:
    address = urlsplit(product.base_url)
    with socket.create_connection((address.hostname, address.port), LONGEST_SECONDS) as line:
        yield line


def answer(product: Product, header: str, body: Iterable[bytes] = ()) -> bytes:
    """All that is answered to a form until the connection is closed."""
    with connected(product) as line:
        host = urlsplit(product.base_url).netloc
        line.sendall(f"POST /login/ HTTP/1.1\r\nHost: {host}\r\n{header}\r\n\r\n".encode())
        with suppress(ConnectionError):  # it need not take all
            for part in body:
                line.sendall(part)
        return b"".join(iter(lambda: line.recv(1 << 16), b""))


def chunks(pieces: int) -> Iterator[bytes]:
    for _ in range(pieces):
        yield b"10000\r\n" + bytes(1 << 16) + b"\r\n"
    yield b"0\r\n\r\n"


def test_a_body_that_says_that_it_is_too_large_is_refused_before_it_is_read(running):
    said = answer(running, f"Content-Length: {400 * MIB}")
    assert said.startswith(b"HTTP/1.1 413 ")
    assert b"Connection: close" in said
    assert b"too large" in said


def test_no_more_of_it_is_asked_for(running):
    said = answer(running, f"Content-Length: {3 * MIB}\r\nExpect: 100-continue")
    assert said.startswith(b"HTTP/1.1 413 ")
    assert b"100 Continue" not in said


def test_a_body_that_grows_too_large_is_refused_then(running):
    said = answer(running, "Transfer-Encoding: chunked", chunks(4 * MIB >> 16))
    assert said.startswith(b"HTTP/1.1 413 ")
    assert said.count(b"HTTP/1.1") == 1


@pytest.mark.parametrize("header", ["Transfer-Encoding: chunked", f"Content-Length: {2 * MIB}"])
def test_a_body_as_large_as_a_form_may_be_reaches_the_page(running, header):
    body = chunks(2 * MIB >> 16) if "chunked" in header else [bytes(2 * MIB)]
    said = answer(running, f"{header}\r\nConnection: close", body)
    assert said.startswith(b"HTTP/1.1 403 ")  # it lacks the token


def test_it_goes_on_serving_others(running):
    with connected(running) as first:
        first.sendall(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999\r\n\r\n")
        assert running.get("/healthz") == 200
    assert "Traceback" not in running.output
