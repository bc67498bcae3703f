"""A BIN peer under a test's control: records what arrives, and misbehaves on request."""

from __future__ import annotations

import contextlib
import selectors
import socket
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Self

from clusterer.wire import FrameDecoder, Packet, WireError
from tests.support.ports import free_port
from tests.support.processes import EVENTUALLY_S, wait_until

_CHUNK = 65536
_TICK_S = 0.05
_MOST_READS = 1000
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


@dataclass
class ReceivedConnection:
    """One inbound connection and everything that came over it."""

    peer: tuple[str, int]
    socket: socket.socket = field(repr=False)
    chunks: list[tuple[float, bytes]] = field(default_factory=list, repr=False)
    packets: list[Packet] = field(default_factory=list, repr=False)
    error: WireError | None = None
    ended: str = ""
    """Why it is over: "peer closed", "peer reset", "closed", "reset"; empty while it is open."""
    decoder: FrameDecoder = field(default_factory=FrameDecoder, repr=False)

    @property
    def data(self) -> bytes:
        """All bytes received, decodable or not."""
        return b"".join(chunk for _, chunk in self.chunks)

    @property
    def has_partial_frame(self) -> bool:
        """True if the last frame began and never ended."""
        return self.decoder.in_message

    def record(self, chunk: bytes) -> None:
        """Note a chunk with its arrival time (monotonic) and the packets it completed."""
        self.chunks.append((time.monotonic(), chunk))
        if self.error is not None:
            return
        try:
            self.packets.extend(self.decoder.feed(chunk))
        except WireError as error:
            self.error = error


class BinReceiver:
    """Threaded TCP server that takes BIN on ``host``:``port`` (0: a free one).

    A context manager. ``receive_buffer`` bounds the bytes that the kernel takes while reading is
    paused. ``decoder`` makes the decoder of each connection. `stop` makes the address refuse
    connections, `start` has it listen again.
    """

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        receive_buffer: int | None = None,
        decoder: Callable[[], FrameDecoder] = FrameDecoder,
    ) -> None:
        self.host = host
        self.port = port or free_port(host)
        self.connections: list[ReceivedConnection] = []
        self._receive_buffer = receive_buffer
        self._decoder = decoder
        self._lock = threading.RLock()
        self._paused = False
        self._selector: selectors.DefaultSelector | None = None
        self._listener: socket.socket | None = None
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    # What arrived

    @property
    def address(self) -> tuple[str, int]:
        return (self.host, self.port)

    @property
    def url(self) -> str:
        """The address as the provisioning table has it."""
        return f"bin:{self.host}:{self.port}"

    @property
    def packets(self) -> list[Packet]:
        """All complete packets, connection after connection in the order of their accepting.

        Also those that are in the kernel still, as the thread may be late.
        """
        with self._lock:
            if self._thread is not None:
                self._catch_up()
            return [packet for connection in self.connections for packet in connection.packets]

    @property
    def frame_count(self) -> int:
        """Number of complete BIN frames over all connections."""
        with self._lock:
            return sum(len(connection.packets) for connection in self.connections)

    @property
    def open_connections(self) -> list[ReceivedConnection]:
        with self._lock:
            return [connection for connection in self.connections if not connection.ended]

    def wait_for_frames(self, count: int, timeout_s: float = EVENTUALLY_S) -> list[Packet]:
        """Wait until at least ``count`` frames are there and return all packets."""
        try:
            wait_until(lambda: self.frame_count >= count, timeout_s)
        except TimeoutError:
            raise TimeoutError(
                f"{self.url}: {self.frame_count} of {count} frames within {timeout_s:g} s"
            ) from None
        return self.packets

    def wait_for_connections(self, count: int = 1, timeout_s: float = EVENTUALLY_S) -> None:
        """Wait until ``count`` connections have been accepted, open or not."""
        wait_until(
            lambda: len(self.connections) >= count, timeout_s, f"{count} connections to {self.url}"
        )

    # What the peer does

    def start(self) -> None:
        """Listen; after `stop`, on the same port again."""
        assert self._thread is None, "the receiver is running already"
        listener = socket.socket(socket.AF_INET6 if ":" in self.host else socket.AF_INET)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if self._receive_buffer is not None:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self._receive_buffer)
        listener.bind(self.address)
        listener.listen(1024)
        listener.setblocking(False)
        self._listener = listener
        self._selector = selectors.DefaultSelector()
        self._selector.register(listener, selectors.EVENT_READ)
        self._thread = threading.Thread(
            target=self._run, args=(self._selector, listener), name=self.url, daemon=True
        )
        self._thread.start()

    def stop(self, *, reset: bool = False) -> None:
        """Close the listener and all connections: from now on connecting is refused.

        What has arrived by then is read first, unless reading is paused.
        """
        if self._thread is None or self._selector is None or self._listener is None:
            return
        thread, self._thread = self._thread, None
        thread.join()
        if not reset:
            self._catch_up()
        self._end_all(reset=reset)
        self._selector.close()
        self._listener.close()

    def pause(self) -> None:
        """Stop reading; connections are still accepted, and buffers fill up."""
        with self._lock:
            self._paused = True
            for connection in self.open_connections:
                self._unregister(connection)

    def resume(self) -> None:
        """Read on, with larger buffers: small windows take long on a busy host."""
        with self._lock:
            self._paused = False
            for connection in self.open_connections:
                if self._receive_buffer is not None:
                    connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
                self._register(connection)

    def close_connections(self) -> None:
        """Close all connections in the ordinary way; unread bytes make the kernel send a reset."""
        self._end_all(reset=False)

    def reset_connections(self) -> None:
        """Close all connections with a TCP reset."""
        self._end_all(reset=True)

    # The thread

    def _run(self, selector: selectors.BaseSelector, listener: socket.socket) -> None:
        while self._thread is threading.current_thread():
            for key, _ in selector.select(_TICK_S):
                with self._lock:
                    if key.data is None:
                        self._accept(listener)
                    elif not self._paused and not key.data.ended:
                        self._read(key.data)

    def _catch_up(self) -> None:
        """Read what the kernel has, up to `_MOST_READS` chunks; nothing while reading is paused."""
        if self._paused or self._listener is None:
            return
        while self._accept(self._listener):
            pass
        for connection in self.open_connections:
            for _ in range(_MOST_READS):
                if not self._read(connection):
                    break

    def _accept(self, listener: socket.socket) -> bool:
        """Accept a connection; return whether one was waiting."""
        with contextlib.suppress(BlockingIOError, ConnectionAbortedError):
            accepted, peer = listener.accept()
            accepted.setblocking(False)
            connection = ReceivedConnection((peer[0], peer[1]), accepted, decoder=self._decoder())
            self.connections.append(connection)
            if not self._paused:
                self._register(connection)
            return True
        return False

    def _read(self, connection: ReceivedConnection) -> bool:
        """Read a chunk; return whether there was one."""
        try:
            chunk = connection.socket.recv(_CHUNK)
        except BlockingIOError:
            return False
        except OSError:
            self._end(connection, "peer reset")
            return False
        if chunk:
            connection.record(chunk)
        else:
            self._end(connection, "peer closed")
        return bool(chunk)

    def _register(self, connection: ReceivedConnection) -> None:
        assert self._selector is not None
        with contextlib.suppress(KeyError):  # registered already
            self._selector.register(connection.socket, selectors.EVENT_READ, connection)

    def _unregister(self, connection: ReceivedConnection) -> None:
        assert self._selector is not None
        with contextlib.suppress(KeyError):  # not registered while paused
            self._selector.unregister(connection.socket)

    def _end(self, connection: ReceivedConnection, why: str) -> None:
        self._unregister(connection)
        connection.ended = why
        connection.socket.close()

    def _end_all(self, *, reset: bool) -> None:
        with self._lock:
            for connection in self.open_connections:
                if reset:
                    connection.socket.setsockopt(
                        socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE
                    )
                self._end(connection, "reset" if reset else "closed")
