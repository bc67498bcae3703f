"""JSON-RPC over HTTP as in OpenSIPS 3's mi_http: POST /mi, on TCP or a unix socket."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Mapping
from http import HTTPStatus
from time import monotonic

from clusterer.errors import ClustererError
from clusterer.mi.jsonrpc import Handler, answer
from clusterer.mi.listen_address import Access, Address, Place, free_socket_path, grant
from clusterer.runtime.logs import LimitedLog
from clusterer.runtime.rounds import Rounds

log = logging.getLogger(__name__)

PATH = "/mi"
MAX_HEAD = 16_384
MAX_BODY = 65_536
_MAX_CONNECTIONS = 100
_MOST_ANSWERED = 200
"""Connections from this number on are closed without an answer."""

_READ_S = 5.0
"""Limit for a client to send its request, and again to read the answer."""

_LINGER_S = 1.0
"""Limit for a client to close its connection after the answer."""


class _Refused(Exception):
    def __init__(self, status: HTTPStatus, why: str) -> None:
        super().__init__(why)
        self.status = status


class _EmptyRequest(Exception):
    """The client closed without a request: opensips-cli tests the port with a connection."""


class HttpServer:
    """Serves one address until `close`, one request per connection."""

    def __init__(self, handler: Handler, address: Address, access: Access) -> None:
        self._handler = handler
        self._address = address
        self._access = access
        self._log = LimitedLog(log, 1.0)
        self._server: asyncio.Server | None = None
        self._connections = 0
        self._rounds = Rounds("mi http")

    async def start(self) -> None:
        """Listen; raises `ClustererError`."""
        try:
            if isinstance(self._address, Place):
                self._server = await asyncio.start_server(
                    self._connected, self._address.host, self._address.port, limit=MAX_HEAD
                )
            else:
                free_socket_path(self._address)
                self._server = await asyncio.start_unix_server(
                    self._connected, self._address, limit=MAX_HEAD
                )
                grant(self._address, self._access)
        except OSError as error:
            why = os.strerror(error.errno) if error.errno else str(error)
            raise ClustererError(f"cannot serve HTTP on {self._address}: {why}") from error

    def close(self) -> None:
        """Stop listening."""
        if self._server:
            self._server.close()
        if not isinstance(self._address, Place):
            self._address.unlink(missing_ok=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._connections >= _MOST_ANSWERED:
            writer.transport.abort()
            return
        self._connections += 1
        with self._rounds.guard():
            await self._serve(reader, writer)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            status, body = await self._exchange(reader, writer)
            async with asyncio.timeout(_READ_S):
                writer.write(_response(status, body))
                await writer.drain()
            await _linger(reader, writer)
        except _EmptyRequest:
            pass
        except (OSError, TimeoutError) as error:
            self._log.warning("lost", monotonic(), "mi http: client disconnected: %r", error)
        except asyncio.CancelledError:
            pass  # the loop ends; asyncio's streams would log an error
        finally:
            self._connections -= 1
            writer.transport.abort()

    async def _exchange(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> tuple[HTTPStatus, bytes]:
        try:
            async with asyncio.timeout(_READ_S):
                body = await self._request(reader, writer)
        except _Refused as refused:
            self._log.warning(refused.status, monotonic(), "mi http: request refused: %s", refused)
            return refused.status, f"{refused}\n".encode()
        except TimeoutError:
            return HTTPStatus.REQUEST_TIMEOUT, b"the request took too long\n"
        except asyncio.IncompleteReadError:
            return HTTPStatus.BAD_REQUEST, b"the request is incomplete\n"
        reply = await answer(self._handler, body, f"mi http {_peer(writer)}")
        return (HTTPStatus.OK if reply else HTTPStatus.NO_CONTENT), reply

    async def _request(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        if self._connections > _MAX_CONNECTIONS:
            raise _Refused(HTTPStatus.SERVICE_UNAVAILABLE, "too many connections")
        try:
            method, target, fields = _parse_head(await reader.readuntil(b"\r\n\r\n"))
        except asyncio.IncompleteReadError as cut:
            raise cut if cut.partial else _EmptyRequest from None
        except asyncio.LimitOverrunError:
            raise _Refused(
                HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
                f"the head has more than {MAX_HEAD} bytes",
            ) from None
        length = _checked_length(method, target, fields)
        if fields.get("expect", "").lower() == "100-continue":
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        return await reader.readexactly(length)


async def _linger(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """End the answer, and wait for the client to close: if unread bytes are left at the close, the
    kernel resets the connection, and the answer is lost.
    """
    writer.write_eof()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_LINGER_S):
            while await reader.read(MAX_BODY):
                pass


def _parse_head(raw: bytes) -> tuple[str, str, dict[str, str]]:
    """Return method, target and header fields, their names in lower case; raises `_Refused`."""
    lines = raw.decode("latin-1").split("\r\n")
    words = lines[0].split(" ")
    if len(words) != 3 or not words[2].startswith("HTTP/1."):
        raise _Refused(HTTPStatus.BAD_REQUEST, "not an HTTP/1 request")
    fields: dict[str, str] = {}
    for line in filter(None, lines[1:]):
        name, colon, value = line.partition(":")
        if not colon or name != name.strip() or (name.lower() == "content-length" in fields):
            raise _Refused(HTTPStatus.BAD_REQUEST, "malformed header line")
        fields[name.lower()] = value.strip()
    return words[0], words[1], fields


def _checked_length(method: str, target: str, fields: Mapping[str, str]) -> int:
    """Return the body's length; raises `_Refused` unless the head is that of an MI request."""
    if target.partition("?")[0].rstrip("/") != PATH:
        raise _Refused(HTTPStatus.NOT_FOUND, f"the only path is {PATH}")
    if method != "POST":
        raise _Refused(HTTPStatus.METHOD_NOT_ALLOWED, f"{PATH} accepts POST only")
    if "origin" in fields:
        # Browsers send Origin for web pages; a web page must not command a cluster.
        raise _Refused(HTTPStatus.FORBIDDEN, "requests from web pages are refused")
    length = fields.get("content-length", "")
    if "transfer-encoding" in fields or not length:
        raise _Refused(HTTPStatus.LENGTH_REQUIRED, "Content-Length is missing")
    if not (length.isascii() and length.isdigit()):
        raise _Refused(HTTPStatus.BAD_REQUEST, "Content-Length is not a number")
    if len(length) > 9 or int(length) > MAX_BODY:
        raise _Refused(
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"the body has more than {MAX_BODY} bytes"
        )
    return int(length)


def _response(status: HTTPStatus, body: bytes) -> bytes:
    kind = "application/json" if status is HTTPStatus.OK else "text/plain; charset=utf-8"
    lines = [f"HTTP/1.1 {status.value} {status.phrase}", "Connection: close"]
    if status is not HTTPStatus.NO_CONTENT:
        lines += [f"Content-Type: {kind}", f"Content-Length: {len(body)}"]
    if status is HTTPStatus.METHOD_NOT_ALLOWED:
        lines.append("Allow: POST")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def _peer(writer: asyncio.StreamWriter) -> str:
    peer = None
    with contextlib.suppress(OSError):
        peer = writer.get_extra_info("peername")
    return str(peer[0]) if isinstance(peer, tuple) else "unix socket"
