"""One connection for scripts that are run all the time: half the cost of redis-py's client."""

from __future__ import annotations

import os
import select
import socket
from collections.abc import Sequence
from time import monotonic
from typing import Any

import hiredis
import redis

from clusterer.settings import Settings
from clusterer.store.client import connect
from clusterer.store.scripts import Script

_IDLE_S = 0.5
"""Time without use after which it is checked whether Redis has closed the connection."""

_CHUNK = 65536


class Channel:
    """Writes commands to a socket and reads their replies; redis-py connects and authenticates.

    Not safe to share between threads. Makes a new connection after a fork. Errors are redis-py's;
    after one the next call connects anew.
    """

    def __init__(self, settings: Settings) -> None:
        self._pool = connect(settings).connection_pool
        self._connection: Any = None
        self._socket: socket.socket | None = None
        self._parser = hiredis.Reader()
        self._made_in = 0
        self._used_at = 0.0

    def run(self, script: Script, calls: Sequence[tuple[bytes | str, ...]]) -> list[Any]:
        """Run ``script`` once per call (number of keys, keys, arguments); return the replies."""
        replies = self._exchange([pack("EVALSHA", script.sha, *call) for call in calls])
        for at, reply in enumerate(replies):
            if isinstance(reply, hiredis.ReplyError):
                if not str(reply).startswith("NOSCRIPT"):
                    raise redis.ResponseError(str(reply))
                replies[at] = self._load_and_run(script, calls[at])
        return replies

    def close(self) -> None:
        """Close the connection; the next call makes another."""
        self._socket = None
        if self._connection is not None:
            self._connection.disconnect()

    def _load_and_run(self, script: Script, call: tuple[bytes | str, ...]) -> Any:
        (reply,) = self._exchange([pack("EVAL", script.text, *call)])
        if isinstance(reply, hiredis.ReplyError):
            raise redis.ResponseError(str(reply))
        return reply

    def _exchange(self, commands: Sequence[bytes]) -> list[Any]:
        sock = self._ready()
        try:
            sock.sendall(commands[0] if len(commands) == 1 else b"".join(commands))
            replies = [self._reply(sock) for _ in commands]
        except TimeoutError as error:
            self.close()
            raise redis.TimeoutError("no answer in time") from error
        except OSError as error:
            self.close()
            raise redis.ConnectionError(str(error)) from error
        except BaseException:
            self.close()
            raise
        self._used_at = monotonic()
        return replies

    def _reply(self, sock: socket.socket) -> Any:
        """Return the next reply; an error of the command itself as a value."""
        parser = self._parser
        while (reply := parser.gets()) is False:
            chunk = sock.recv(_CHUNK)
            if not chunk:
                raise ConnectionResetError("connection closed by Redis")
            parser.feed(chunk)
        return reply

    def _ready(self) -> socket.socket:
        if self._made_in != os.getpid():
            self._connection = self._pool.make_connection()
            self._socket = None
            self._made_in = os.getpid()
        elif self._socket is not None and monotonic() - self._used_at > _IDLE_S:
            poll = select.poll()
            poll.register(self._socket, select.POLLIN)
            if poll.poll(0):
                self.close()  # nothing was asked: it is the connection's end
        if self._socket is None:
            self._connection.connect()
            self._parser = hiredis.Reader()
            # redis-py has no public way to a connection's socket.
            self._socket = self._connection._sock  # noqa: SLF001
        return self._socket


def pack(*parts: bytes | str) -> bytes:
    """Return one command as Redis reads it."""
    # hiredis's types know tuples of one part only.
    packed: bytes = hiredis.pack_command(parts)  # type: ignore[arg-type]
    return packed
