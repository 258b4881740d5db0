"""What anybody may send: a request's body is no larger than any form of these pages.

Daphne takes a body whole before any page is asked, into a file and then into memory; Django's own limit comes after it.
"""

from __future__ import annotations

from typing import Any

from daphne import server
from daphne.http_protocol import HTTPFactory, WebRequest
from django.conf import settings

_SENTENCE = b"The request is too large: a form has at most %d bytes.\n"
_ANSWER = (
    b"HTTP/1.1 413 Content Too Large\r\nConnection: close\r\n"
    b"Content-Type: text/plain; charset=utf-8\r\nContent-Length: %d\r\n\r\n%b"
)


class _Request(WebRequest):
    """Refuses its body as soon as it is told to be too large, or has become it."""

    refused = False
    received = 0

    def gotLength(self, length: int | None) -> None:  # noqa: N802  # of Twisted
        super().gotLength(0 if self._too_large(length or 0) else length)

    def handleContentChunk(self, data: bytes) -> None:  # noqa: N802  # of Twisted
        self.received += len(data)
        if not self._too_large(self.received):
            super().handleContentChunk(data)

    def requestReceived(self, *line: bytes) -> None:  # noqa: N802  # of Twisted
        if not self.refused:
            super().requestReceived(*line)

    def _too_large(self, length: int) -> bool:
        most = settings.DATA_UPLOAD_MAX_MEMORY_SIZE
        if length > most and not self.refused:
            self.refused = True
            self.requestHeaders.removeHeader(b"Expect")  # the channel would ask for the body
            sentence = _SENTENCE % most
            self.channel.transport.write(_ANSWER % (len(sentence), sentence))
            self.channel.loseConnection()
        return self.refused


class _Factory(HTTPFactory):
    def buildProtocol(self, addr: Any) -> Any:  # noqa: N802  # of Twisted
        protocol = super().buildProtocol(addr)
        protocol.requestFactory = _Request
        return protocol


def limit() -> None:
    """Have all servers of this process limit them: Daphne's asks nobody for the class of its requests."""
    server.HTTPFactory = _Factory
