"""One non-blocking BIN connection from a sender to a node."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import sys
import termios
from time import monotonic

from clusterer.errors import PeerUnreachable
from clusterer.runtime.routes import bind_source, family_of

MAX_WRITE = 256 * 1024
"""Bytes of the largest single write: a worker that was stopped within a write finishes the write
when the worker continues, long after its lease has ended."""

SEND_BUFFER = 256 * 1024
"""SO_SNDBUF: bounds the bytes that the kernel holds for a peer that does not read."""

MAX_UNASKED = 64 * 1024
"""Bytes that a peer may write on a connection, although BIN has no answers."""

READ_AT_ONCE = 16 * 1024
"""Bytes read of one peer before the others get their turn."""

_IP_BIND_ADDRESS_NO_PORT = 24  # linux/in.h; choose the ephemeral port at connect, per peer
_GONE = frozenset(
    {errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EHOSTDOWN, errno.ENETDOWN}
)
_OURS = frozenset(
    {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL, errno.EACCES}
)
_AGAIN = (errno.EAGAIN, errno.EINPROGRESS, errno.EINTR)

SELF_CONNECTED = "Connection refused (only this socket itself has the port)"
"""Reason of a failure that `connected_to_itself` found."""


def connected_to_itself(sock: socket.socket) -> bool:
    """Whether both ends of a TCP connection are this one socket.

    TCP's simultaneous open (RFC 9293, 3.5) lets a socket connect to a port of its own host on which
    nothing listens, if the kernel chose that very port as the socket's own.
    """
    try:
        return bool(sock.getsockname() == sock.getpeername())
    except OSError:  # ended meanwhile: the next use says so
        return False


class LocalFault(Exception):
    """This host cannot make a connection: no fault of the peer."""


class LinkBroken(Exception):
    """An established connection ended.

    ``unreachable`` is True where the peer made no progress for ``send_timeout``, False where it
    closed or reset the connection (a restarted peer takes the next one).
    """

    def __init__(self, message: str, *, unreachable: bool) -> None:
        super().__init__(message)
        self.unreachable = unreachable


class UnaskedBytes(LinkBroken):
    """The peer has written more than `MAX_UNASKED` bytes on a connection."""

    def __init__(self, size: int) -> None:
        super().__init__(f"the node wrote {size} bytes where BIN has no answer", unreachable=False)


class Link:
    """A connection that is being made, or is established. Nothing is read but its end."""

    __slots__ = ("progress_at", "since", "sock", "unasked")

    def __init__(self, address: tuple[str, int], source: str | None, send_timeout_s: float) -> None:
        """Start connecting from ``source`` (an IP; None: any).

        Raises `PeerUnreachable`, or `LocalFault`.
        """
        family = family_of(address[0])
        self.unasked = 0
        """Bytes that the peer has written."""
        self.since = self.progress_at = monotonic()
        try:
            self.sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        except OSError as error:
            raise LocalFault(f"no socket: {os.strerror(error.errno or 0)}") from error
        try:
            self._prepare(source, send_timeout_s)
        except OSError as error:
            self.sock.close()
            raise LocalFault(f"cannot send from {source}: {error}") from error
        code = self.sock.connect_ex(address)
        if code not in (0, *_AGAIN):
            self.sock.close()
            reason = f"cannot connect to {address}: {os.strerror(code)}"
            raise (LocalFault if code in _OURS else PeerUnreachable)(reason)

    def _prepare(self, source: str | None, send_timeout_s: float) -> None:
        sock = self.sock
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
        user_timeout = getattr(socket, "TCP_USER_TIMEOUT", None)
        if user_timeout is not None:
            sock.setsockopt(socket.IPPROTO_TCP, user_timeout, int(send_timeout_s * 1000))
        if source is not None:
            if sock.family == socket.AF_INET:
                sock.setsockopt(socket.IPPROTO_IP, _IP_BIND_ADDRESS_NO_PORT, 1)
            bind_source(sock, source)

    def fileno(self) -> int:
        """Return the descriptor, for a selector."""
        return self.sock.fileno()

    def finish_connecting(self) -> None:
        """Note that the socket is writable; raises `PeerUnreachable` if the connect has failed."""
        code = self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            raise PeerUnreachable(f"cannot connect: {os.strerror(code)}")
        if connected_to_itself(self.sock):
            raise PeerUnreachable(f"cannot connect: {SELF_CONNECTED}")
        self.since = self.progress_at = monotonic()

    def send(self, data: bytes | memoryview) -> int:
        """Write as much as the kernel takes, at most MAX_WRITE bytes; return how much.

        Raises `LinkBroken`.
        """
        try:
            written = self.sock.send(data if len(data) <= MAX_WRITE else data[:MAX_WRITE])
        except BlockingIOError:
            return 0
        except OSError as error:
            raise _broken(error) from error
        self.progress_at = monotonic()
        return written

    def unacknowledged(self) -> int:
        """Return how many written bytes the peer's kernel has not acknowledged; 0 if unknown."""
        try:
            answer = fcntl.ioctl(self.sock, termios.TIOCOUTQ, bytes(4))
        except OSError:
            return 0
        return int.from_bytes(answer, sys.byteorder)

    def check(self) -> None:
        """Note that the socket is readable; raises `LinkBroken` if the peer has closed.

        Reads a bounded number of bytes: the rest makes the socket readable again. Raises
        `UnaskedBytes` once the peer has written more than `MAX_UNASKED`.
        """
        try:
            size = len(self.sock.recv(READ_AT_ONCE))
        except BlockingIOError:
            return
        except OSError as error:
            raise _broken(error) from error
        if not size:
            raise LinkBroken("closed by the peer", unreachable=False)
        self.unasked += size
        if self.unasked > MAX_UNASKED:
            raise UnaskedBytes(self.unasked)

    def finish_writing(self) -> None:
        """Tell the peer that no more bytes follow."""
        with contextlib.suppress(OSError):  # already gone: the next check says so
            self.sock.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Close at once; the kernel still sends the bytes that it holds."""
        self.sock.close()


def _broken(error: OSError) -> LinkBroken:
    return LinkBroken(error.strerror or str(error), unreachable=error.errno in _GONE)
