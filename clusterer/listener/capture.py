"""Packet capture: a thread writes copies of received packets for `clusterer tail`, bounded."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Iterator

from clusterer.errors import ClustererError
from clusterer.listener.counters import Counters
from clusterer.runtime.logs import LimitedLog
from clusterer.runtime.rounds import Rounds
from clusterer.store.captures import MAX_ENTRY, Captured, CaptureStore
from clusterer.wire import Packet

log = logging.getLogger(__name__)

MAX_PACKETS = 10_000
"""Packets that may wait for the thread; more are counted as lost."""
MAX_BYTES = 8_388_608
"""Bytes of payload that may wait."""

MAX_RATE = 20_000
"""Packets a second that the thread encodes and writes: a capture must not slow down callbacks."""

_WRITE_S = 0.05
_MOST_AT_ONCE = int(MAX_RATE * _WRITE_S)
_STOP_S = 1.5
_LOG_INTERVAL_S = 30.0

_Waiting = tuple[int, float, tuple[str, int], Packet]


class Capture:
    """Copies packets while ``active``; costs nothing otherwise.

    `begin`, `end` and `copied` run in the listener's thread.
    """

    def __init__(self, server_id: int, store: CaptureStore, counters: Counters) -> None:
        self._server_id = server_id
        self._store = store
        self._counters = counters
        self._until = 0.0
        self._number = 0
        self._queue: deque[_Waiting] = deque()
        self._bytes_in = 0
        self._bytes_out = 0
        self._signal = threading.Event()
        """Set while packets are captured, and when the thread has to end."""
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._limited = LimitedLog(log, _LOG_INTERVAL_S)
        self.active = False

    def begin(self, until: float) -> None:
        """Capture until ``until`` (monotonic)."""
        self._until = until
        if self.active:
            return
        self.active = True
        log.info("instance %d: packet capture started", self._server_id)
        if self._thread is None:
            name = "clusterer-capture"
            self._thread = threading.Thread(target=self._work, name=name, daemon=True)
            self._thread.start()
        self._signal.set()

    def end(self, now: float) -> None:
        """Stop the capture if its time is over at ``now`` (monotonic)."""
        if self.active and now > self._until:
            self.active = False
            self._signal.clear()
            log.info("instance %d: packet capture stopped", self._server_id)

    def copied(self, packets: Iterator[Packet], source: tuple[str, int]) -> Iterator[Packet]:
        """Yield ``packets``, and keep a copy of each."""
        now = time.time()
        for packet in packets:
            self._keep(now, source, packet)
            yield packet

    def stop(self) -> None:
        """End the thread."""
        self._stopping.set()
        self._signal.set()
        if self._thread is not None:
            self._thread.join(_STOP_S)
        self._store.close()

    def _keep(self, now: float, source: tuple[str, int], packet: Packet) -> None:
        self._number += 1
        size = len(packet.payload)
        waiting = self._bytes_in - self._bytes_out
        if len(self._queue) >= MAX_PACKETS or waiting + size > MAX_BYTES:
            self._counters.capture_losses += 1
            return
        self._bytes_in += size
        self._counters.captured += 1
        self._queue.append((self._number, now, source, packet))

    # -- the thread -----------------------------------------------------------------------------

    def _work(self) -> None:
        rounds = Rounds("capture")
        while not self._stopping.is_set():
            if not self._queue:
                self._signal.wait()
            with rounds.guard():
                self._write()
            self._stopping.wait(_WRITE_S)

    def _write(self) -> None:
        for entry in self._entries():
            try:
                self._store.write(self._server_id, entry)
            except ClustererError as error:
                # `clusterer tail` sees the gap in the numbers.
                self._limited.warning(
                    "away",
                    time.monotonic(),
                    "instance %d: packets not captured: %s",
                    self._server_id,
                    error,
                )
                return

    def _entries(self) -> Iterator[list[Captured]]:
        """Take waiting packets up to the rate, in lists that fit into one entry."""
        entry: list[Captured] = []
        size = 0
        for packet in self._taken():
            if entry and size + len(packet.frame) > MAX_ENTRY:
                yield entry
                entry, size = [], 0
            entry.append(packet)
            size += len(packet.frame)
        if entry:
            yield entry

    def _taken(self) -> Iterator[Captured]:
        for _ in range(_MOST_AT_ONCE):
            with contextlib.suppress(IndexError):
                number, at, source, packet = self._queue.popleft()
                self._bytes_out += len(packet.payload)
                yield Captured(number, int(at * 1000), source, packet.encode())
                continue
            return
