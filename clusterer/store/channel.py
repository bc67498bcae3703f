"""One connection for frequent scripts, at half the cost of redis-py's client."""

from __future__ import annotations

import select
import socket
import struct
from collections.abc import Callable, Sequence
from time import monotonic
from typing import Any

import hiredis
import redis

from clusterer.endpoint import socket_of
from clusterer.runtime import forks
from clusterer.settings import Settings
from clusterer.store.client import connect
from clusterer.store.scripts import Script

_IDLE_S = 0.5
"""Time without use after which the channel checks connection and server before the next use."""

_CHUNK = 16 * 1024
_TIMEVAL = struct.Struct("@ll")


class Channel:
    """Writes commands to a socket and reads their replies; redis-py connects and authenticates.

    Not safe to share between threads. Makes a new connection after a fork. Errors are redis-py's;
    after an error the next call makes a new connection.
    """

    def __init__(self, settings: Settings, greet: Callable[[Channel], None] | None = None) -> None:
        """The channel calls ``greet`` with itself after it has connected, and before the command
        that needs the connection.

        ``greet`` must not hold the channel: in a cycle of references, the garbage collector would
        find a dropped channel late, and its socket before the connection that closes the socket.
        """
        self._greet = greet
        self._pool = connect(settings).connection_pool
        self._connection: Any = None
        self._socket: socket.socket | None = None
        # hiredis's types know no bytearray.
        self._parser: Any = hiredis.Reader()
        self._buffer = bytearray(_CHUNK)
        self._used_at = 0.0
        self._replies_due = False
        """Whether replies to sent commands are still unread."""
        forks.renew_in_child(self)

    def renew_in_child(self) -> None:
        """Leave the connection to the parent."""
        self._connection = self._socket = None

    def run(
        self, script: Script, commands: Sequence[bytes], then: bytes | None = None
    ) -> list[Any]:
        """Send `evalsha` commands of ``script`` in one round trip; return their replies.

        The command ``then`` follows them; its reply is the last one.
        """
        replies = self.run_each(script, commands, then)
        for reply in replies:
            if isinstance(reply, redis.ResponseError):
                raise reply
        return replies

    def run_each(
        self, script: Script, commands: Sequence[bytes], then: bytes | None = None
    ) -> list[Any]:
        """Run like `run`; a command's error is a `redis.ResponseError` among the replies."""
        if then is not None:
            commands = [*commands, then]
        replies = self._exchange(commands)
        for reply in replies:
            if isinstance(reply, hiredis.ReplyError):
                return self._load_and_repeat(script, commands, replies, then is not None)
        return replies

    def close(self) -> None:
        """Close the connection; the next call makes another."""
        self._socket = None
        if self._connection is not None:
            self._connection.disconnect()

    def _load_and_repeat(
        self, script: Script, commands: Sequence[bytes], replies: list[Any], and_last: bool
    ) -> list[Any]:
        """Repeat the commands for which Redis did not know the script, and after them the last one
        if ``and_last``; return all replies.
        """
        lost = [at for at, reply in enumerate(replies) if _is_no_script(reply)]
        if lost:
            lost += [len(commands) - 1] if and_last else []
            self._exchange([pack("SCRIPT", "LOAD", script.text)])
            again = self._exchange([commands[at] for at in lost])
            for at, reply in zip(lost, again, strict=True):
                replies[at] = reply
        return [
            self._refused(reply) if isinstance(reply, hiredis.ReplyError) else reply
            for reply in replies
        ]

    def _refused(self, reply: hiredis.ReplyError) -> redis.ResponseError:
        """Return redis-py's form of an error; leave the server if it is no longer the primary."""
        error = redis.ResponseError(str(reply))
        self._connection.leave(error)
        return error

    def _exchange(self, commands: Sequence[bytes]) -> list[Any]:
        sock = self._ready()
        self._replies_due = True
        try:
            sock.sendall(commands[0] if len(commands) == 1 else b"".join(commands))
            replies = [self._reply(sock) for _ in commands]
        except (TimeoutError, BlockingIOError) as error:
            self.close()
            raise redis.TimeoutError("no answer in time") from error
        except OSError as error:
            self.close()
            raise redis.ConnectionError(str(error)) from error
        except BaseException:
            self.close()
            raise
        self._replies_due = False
        self._used_at = monotonic()
        return replies

    def _reply(self, sock: socket.socket) -> Any:
        """Return the next reply; an error of the command is a value."""
        parser, buffer = self._parser, self._buffer
        while (reply := parser.gets()) is False:
            size = sock.recv_into(buffer)
            if not size:
                raise ConnectionResetError("connection closed by Redis")
            parser.feed(buffer, 0, size)
        return reply

    def _ready(self) -> socket.socket:
        if self._replies_due or (self._socket is not None and self._is_outdated(self._socket)):
            self.close()  # an interrupt may have come even before the close that an error brings
        if self._socket is None:
            if self._connection is None:
                self._connection = self._pool.make_connection()
            self._connection.connect()
            self._replies_due = False
            self._parser = hiredis.Reader()
            # A check at once would take what TLS sends unasked for the end of the connection.
            self._used_at = monotonic()
            self._socket = socket_of(self._connection)
            _let_the_kernel_wait(self._socket)
            self._begin()
        if self._socket is None:
            raise redis.ConnectionError("the connection was closed as it began")
        return self._socket

    def _begin(self) -> None:
        """Greet the server; without success the next call makes another connection."""
        if self._greet is not None:
            try:
                self._greet(self)
            except BaseException:
                self.close()
                raise

    def _is_outdated(self, sock: socket.socket) -> bool:
        """Whether the connection has ended, or its server is no longer the primary."""
        if monotonic() - self._used_at <= _IDLE_S:
            return bool(self._connection.should_reconnect())
        poll = select.poll()
        poll.register(sock, select.POLLIN)
        if poll.poll(0):
            return True  # no reply is due: the server has closed the connection
        try:
            return bool(self._connection.is_stale())
        except redis.RedisError:
            self.close()
            raise


def evalsha(script: Script, *parts: bytes | str) -> bytes:
    """Return the command that runs a script: ``parts`` are number of keys, keys, arguments."""
    return pack("EVALSHA", script.sha, *parts)


def pack(*parts: bytes | str) -> bytes:
    """Return one command as Redis reads it."""
    # hiredis's types know tuples of one part only.
    packed: bytes = hiredis.pack_command(parts)  # type: ignore[arg-type]
    return packed


def _let_the_kernel_wait(sock: socket.socket) -> None:
    """Move a socket's timeout into the kernel: Python would poll before every send and receive.

    Not for TLS: its layer would misread the kernel's answer.
    """
    timeout = sock.gettimeout()
    if type(sock) is socket.socket and timeout:
        seconds, rest = divmod(timeout, 1)
        value = _TIMEVAL.pack(int(seconds), int(rest * 1e6))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, value)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, value)
        sock.settimeout(None)


def _is_no_script(reply: Any) -> bool:
    return isinstance(reply, hiredis.ReplyError) and str(reply).startswith("NOSCRIPT")
