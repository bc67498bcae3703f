"""The protocol of mi_fifo: lines of OpenSIPS 2.2, JSON-RPC of OpenSIPS 3, and 2.2's replies."""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator
from dataclasses import dataclass

from clusterer.mi.commands import FifoError, Listed, ListedNode, MiError, Names, Result
from clusterer.mi.fifo_lines import BadRequest, LineDecoder, Request
from clusterer.mi.json_frame import BrokenJson, JsonFrame

_HEAD = re.compile(rb":([^:\s{\[]{0,255}):[ \t]*(?=[{\[])")
"""``:reply_fifo_name:`` before JSON. OpenSIPS 2.2 has the reply's name in place of the JSON."""

_HEAD_BEGUN = re.compile(rb":[^:\s{\[]{0,255}(?::[ \t]{0,9})?\Z")


@dataclass(frozen=True, slots=True)
class RpcRequest:
    """A whole JSON-RPC request."""

    reply: str
    """Name of the reply FIFO, unchecked; empty if the client wants no reply."""
    body: bytes


Item = Request | RpcRequest | BadRequest


class RequestDecoder:
    """Splits the FIFO's bytes into the requests of both kinds, in bounded memory."""

    def __init__(self) -> None:
        self._lines = LineDecoder()
        self._held = b""
        """The last bytes, which may be the beginning of a head."""
        self._reply = ""
        self._frame: JsonFrame | None = None

    @property
    def pending(self) -> bool:
        """Whether a request is incomplete."""
        return bool(self._held or self._frame or self._lines.pending)

    def feed(self, chunk: bytes) -> Iterator[Item]:
        """Yield the requests that ``chunk`` completes."""
        data, self._held, at = self._held + chunk, b"", 0
        while at < len(data):
            if self._frame is None:
                at = yield from self._take_lines(data, at)
                continue
            try:
                end = self._frame.feed(data, at)
            except BrokenJson as broken:
                again = bytes(self._frame.text[1:])
                yield self._cut(str(broken))
                # The bytes behind the first brace may be the next request: decode them again.
                data, at = again + data[broken.index :], 0
                continue
            if end is None:
                return
            yield RpcRequest(self._reply, bytes(self._frame.text))
            self._frame, at = None, end

    def give_up(self) -> Iterator[Item]:
        """Drop an incomplete request: its client has sent nothing for too long."""
        if self._frame:
            yield self._cut("its JSON has no end")
        held, self._held = self._held, b""
        yield from self._lines.feed(held)
        yield from self._lines.give_up()

    def _take_lines(self, data: bytes, at: int) -> Generator[Item, None, int]:
        """Decode the lines before the next JSON-RPC request; return the index behind its head."""
        head = _HEAD.search(data, at)
        if head is None:
            begun = _HEAD_BEGUN.search(data, max(at, len(data) - 300))
            stop = begun.start() if begun else len(data)
            self._held = data[stop:]
            yield from self._lines.feed(data[at:stop])
            return len(data)
        yield from self._lines.feed(data[at : head.start()])
        yield from self._lines.give_up()
        self._reply = head[1].decode("utf-8", "replace")
        self._frame = JsonFrame()
        return head.end()

    def _cut(self, why: str) -> BadRequest:
        self._frame = None
        return BadRequest(f"JSON-RPC: {why}", self._reply, is_json=True)


_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f]+")


def encode(outcome: Result | MiError) -> bytes:
    """Return the reply, byte for byte as OpenSIPS 2.2 writes it."""
    if isinstance(outcome, FifoError):
        return _line(f"{outcome.code} {outcome.reason}")
    if isinstance(outcome, MiError):
        return _line(f"{outcome.code} {outcome.reason}") + b"\n"
    return b"".join([_line("200 OK"), *_lines(outcome), b"\n"])


def _lines(result: Result) -> Iterator[bytes]:
    if isinstance(result, Listed):
        for cluster in result.clusters:
            yield _line(f"Cluster:: {cluster.cluster_id}")
            for node in cluster.nodes:
                yield b"\t" + _line(_server(node))
    elif isinstance(result, Names):
        # Requests of OpenSIPS 2.2 cannot contain a name with a colon.
        yield from (_line(name) for name in result.names if ":" not in name)


def _server(node: ListedNode) -> str:
    return (
        f"Server:: {node.node_id} DB_ID={node.db_id} URL={node.url} State={node.state} "
        f"Last_failed_attempt={node.last_failed_attempt} "
        f"Max_failed_attempts={node.max_failed_attempts} no_tries={node.no_tries} "
        f"Seconds_until_enabling={node.seconds_until_enabling} Description={node.description}"
    )


def _line(text: str) -> bytes:
    """Return one line; control characters (a line feed in a description) become blanks."""
    return _UNPRINTABLE.sub(" ", text).encode("utf-8", "replace") + b"\n"
