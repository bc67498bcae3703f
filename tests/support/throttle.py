"""A BIN peer that reads at a bounded rate, through a small receive buffer."""

from __future__ import annotations

import socket
import threading
import time
from typing import Self

from clusterer.wire import FrameDecoder, Packet, WireError
from tests.support.ports import free_port


class ThrottledReceiver:
    """Accepts any number of connections and reads them all at ``bytes_per_s`` together."""

    def __init__(self, bytes_per_s: int, receive_buffer: int = 65536) -> None:
        self.host, self.port = "127.0.0.1", free_port("127.0.0.1")
        self.packets: list[Packet] = []
        self.connections = 0
        self.errors: list[WireError] = []
        self._rate = bytes_per_s
        self._stop = threading.Event()
        self._turn = threading.Lock()
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self._socket.bind((self.host, self.port))
        self._socket.listen()
        self._socket.settimeout(0.1)

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._socket.close()

    def _accept(self) -> None:
        while not self._stop.is_set():
            try:
                connection, _ = self._socket.accept()
            except TimeoutError:
                continue
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._read, args=(connection,), daemon=True).start()

    def _read(self, connection: socket.socket) -> None:
        decoder = FrameDecoder()
        with connection:
            while not self._stop.is_set():
                with self._turn:
                    chunk = connection.recv(8192)
                    if not chunk:
                        return
                    try:
                        self.packets.extend(decoder.feed(chunk))
                    except WireError as error:
                        self.errors.append(error)
                        return
                    time.sleep(len(chunk) / self._rate)
