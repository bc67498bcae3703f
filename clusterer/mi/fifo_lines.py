"""Requests of OpenSIPS 2.2's mi_fifo: a head, and one parameter per line."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from clusterer.mi.commands import MiError, ParseError
from clusterer.mi.parameters import Malformed, Parameters
from clusterer.mi.requests import WRONG_COUNT, takes_parameters

MAX_LINE = 1024
"""Bytes in a line, as in OpenSIPS 2.2."""

MAX_PARAMETERS = 32

_HEAD = re.compile(r":(?P<command>[^:]+):(?P<reply>[^:]*):?")
_TAIL = re.compile(r":\w+:[^:/\s]*:?$")
"""A head at the end of another client's unfinished line."""


_BAD_REQUEST = MiError(400, "Bad request")


@dataclass(frozen=True, slots=True)
class Request:
    """A whole request."""

    command: str
    reply: str
    """Name of the reply FIFO, unchecked; empty if the client wants no reply."""
    words: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class BadRequest:
    """An invalid or incomplete request."""

    why: str
    """Text for the log."""
    reply: str = ""
    """Name of the reply FIFO; empty if unknown."""
    error: MiError = _BAD_REQUEST
    """The error to reply."""
    is_json: bool = False
    """Whether the client reads JSON-RPC."""


class LineDecoder:
    """Splits bytes into the requests of many clients, in bounded memory.

    After an error the next line that begins with ``:`` begins a new request.
    """

    def __init__(self) -> None:
        self._line = bytearray()
        self._too_long = False
        self._head: tuple[str, str] | None = None
        self._parameters = Parameters()
        self._skipping = False

    @property
    def pending(self) -> bool:
        """Whether a line or a request is incomplete."""
        return bool(self._line or self._too_long or self._head)

    def feed(self, chunk: bytes) -> Iterator[Request | BadRequest]:
        """Yield the requests that ``chunk`` completes."""
        *whole, rest = chunk.split(b"\n")
        for piece in whole:
            self._extend(piece)
            line, too_long = bytes(self._line), self._too_long
            self._line.clear()
            self._too_long = False
            yield from self._too_long_line(line) if too_long else self._take(line)
        self._extend(rest)

    def give_up(self) -> Iterator[BadRequest]:
        """Drop an incomplete request: no byte came for too long, or another request began."""
        if self._head:
            yield self._cut("its end (an empty line) is missing")
        elif self.pending:
            yield BadRequest(f"a line without an end: {_shown(bytes(self._line))}")
        self._line.clear()
        self._too_long = self._skipping = False

    def _extend(self, piece: bytes) -> None:
        """Add to the line; only the last `MAX_LINE` bytes are kept."""
        self._too_long |= len(self._line) + len(piece) > MAX_LINE
        self._line += piece[-MAX_LINE:]
        del self._line[:-MAX_LINE]

    def _too_long_line(self, line: bytes) -> Iterator[Request | BadRequest]:
        why = f"a line of more than {MAX_LINE} bytes that ends in {_shown(line[-60:])}"
        yield self._cut(why, "Line too long") if self._head else BadRequest(why)
        yield from self._salvage(line.decode("utf-8", "replace"))

    def _salvage(self, line: str) -> Iterator[Request | BadRequest]:
        """Begin the request at the end of a bad line: that request may be valid."""
        self._skipping = True
        if found := _TAIL.search(line):
            yield from self._begin(found[0])

    def _take(self, raw: bytes) -> Iterator[Request | BadRequest]:
        line = raw.decode("utf-8", "replace").rstrip("\r")
        if self._is_head(line):
            if self._head:
                yield self._cut("another request began before its end (an empty line)")
            yield from self._begin(line)
        elif not line.strip():
            self._skipping = False
            if self._head:
                yield self._end()
        elif self._head:
            yield from self._parameter(line)
        elif not self._skipping:
            yield BadRequest(f"expected :command:reply_fifo_name, found {_shown(raw)}")
            yield from self._salvage(line)

    def _is_head(self, line: str) -> bool:
        """Whether a line begins a request: a parameter without a name may begin with ``::``."""
        inside = self._head is not None or self._skipping
        return line.startswith(":") and not (inside and line.startswith("::"))

    def _begin(self, line: str) -> Iterator[Request | BadRequest]:
        self._skipping = False
        match = _HEAD.fullmatch(line)
        if match is None:
            self._skipping = True
            yield BadRequest(f"expected :command:reply_fifo_name, found {_shown(line.encode())}")
            return
        # A blank beside the command's name is part of the name, as in OpenSIPS 2.2.
        self._head = match["command"], match["reply"].strip()
        if not takes_parameters(self._head[0]):
            # As in OpenSIPS 2.2, the reply does not wait for the empty line, which `echo` omits.
            yield self._end()
            self._skipping = True

    def _parameter(self, line: str) -> Iterator[BadRequest]:
        try:
            self._parameters.add(line)
        except Malformed as fault:
            yield self._malformed(str(fault))
            self._skipping = True
            return
        if len(self._parameters.words) > MAX_PARAMETERS:
            yield self._cut(f"more than {MAX_PARAMETERS} parameters", WRONG_COUNT)
            self._skipping = True

    def _end(self) -> Request | BadRequest:
        if self._parameters.is_open:
            return self._malformed('a " without its end')
        command, reply, words = self._reset()
        return Request(command, reply, words)

    def _malformed(self, why: str) -> BadRequest:
        command, reply, _ = self._reset()
        return BadRequest(f"{_shown(command.encode())}: {why}", reply, ParseError(command))

    def _cut(self, why: str, reason: str = "Bad request") -> BadRequest:
        command, reply, _ = self._reset()
        return BadRequest(f"{_shown(command.encode())}: {why}", reply, MiError(400, reason))

    def _reset(self) -> tuple[str, str, tuple[str, ...]]:
        command, reply = self._head or ("", "")
        words = tuple(self._parameters.words)
        self._head, self._parameters = None, Parameters()
        return command, reply, words


def _shown(raw: bytes) -> str:
    text = raw[:60].decode("utf-8", "replace")
    return repr(text + ("…" if len(raw) > 60 else ""))
