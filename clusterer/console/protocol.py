"""HTTP connections that close if the client sends no request."""

from __future__ import annotations

import asyncio
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

HEAD_S = 10.0
"""Time in which the head of a request must have arrived, counted from the connection or from the
first bytes after the last answer. uvicorn has a timeout for connections without any byte after an
answer only: so many silent connections would keep all others out."""


class Protocol(H11Protocol):
    """A connection of uvicorn with a deadline for the head of each request."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for the first request."""
        super().connection_made(transport)
        self._expect()

    def data_received(self, data: bytes) -> None:
        """Wait for the rest of a head that has not arrived whole."""
        super().data_received(data)
        cycle: Any = self.cycle  # None before the first request
        if cycle is None or cycle.response_complete:
            self._expect()
        else:
            self._expect_no_more()

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP request, with the headers that uvicorn leaves out there."""
        head = [*self.server_state.default_headers, (b"content-type", b"text/plain; charset=utf-8")]
        answer = h11.Response(
            status_code=400, reason=b"Bad Request", headers=[*head, (b"connection", b"close")]
        )
        for event in (answer, h11.Data(data=msg.encode("ascii")), h11.EndOfMessage()):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no more."""
        self._expect_no_more()
        super().connection_lost(exc)

    def _expect(self) -> None:
        if self._late is None and not self.transport.is_closing():
            self._late = self.loop.call_later(HEAD_S, self.transport.close)

    def _expect_no_more(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None
