"""Keeps what comes in for those who tail, from a thread, and within bounds."""

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
from clusterer.store.captures import MAX_ENTRY, Mirrored, MirrorStore
from clusterer.wire import Packet

log = logging.getLogger(__name__)

MAX_PACKETS = 10_000
"""Packets that wait for the thread; more are counted as lost."""
MAX_BYTES = 8_388_608
"""Bytes of their payloads, likewise."""

MAX_RATE = 20_000
"""Packets a second that are encoded and written: what those who tail get must not be taken from
those who are served."""

_WRITE_S = 0.05
_MOST_AT_ONCE = int(MAX_RATE * _WRITE_S)
_STOP_S = 1.5
_LOG_INTERVAL_S = 30.0

_Waiting = tuple[int, float, tuple[str, int], Packet]


class Mirror:
    """Takes packets while it is ``active``, which costs nothing otherwise.

    `begin`, `end` and `seen` belong to the listener's thread.
    """

    def __init__(self, server_id: int, store: MirrorStore, counters: Counters) -> None:
        self._server_id = server_id
        self._store = store
        self._counters = counters
        self._until = 0.0
        self._number = 0
        self._queue: deque[_Waiting] = deque()
        self._bytes_in = 0
        self._bytes_out = 0
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._limited = LimitedLog(log, _LOG_INTERVAL_S)
        self.active = False

    def begin(self, until: float) -> None:
        """Mirror until ``until`` (monotonic); somebody tails."""
        self._until = until
        if self.active:
            return
        self.active = True
        log.info("somebody tails: mirroring what comes in")
        if self._thread is None:
            name = "clusterer-mirror"
            self._thread = threading.Thread(target=self._work, name=name, daemon=True)
            self._thread.start()
        self._wake.set()

    def end(self, now: float) -> None:
        """Mirror no more if nobody has asked for it lately; ``now`` is monotonic."""
        if self.active and now > self._until:
            self.active = False
            self._wake.clear()
            log.info("nobody tails any more")

    def seen(self, packets: Iterator[Packet], source: tuple[str, int]) -> Iterator[Packet]:
        """Pass packets on, and keep each."""
        now = time.time()
        for packet in packets:
            self._keep(now, source, packet)
            yield packet

    def stop(self) -> None:
        """End the thread."""
        self._stopping.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join(_STOP_S)
        self._store.close()

    def _keep(self, now: float, source: tuple[str, int], packet: Packet) -> None:
        self._number += 1
        size = len(packet.payload)
        waiting = self._bytes_in - self._bytes_out
        if len(self._queue) >= MAX_PACKETS or waiting + size > MAX_BYTES:
            self._counters.mirror_losses += 1
            return
        self._bytes_in += size
        self._counters.mirrored += 1
        self._queue.append((self._number, now, source, packet))

    # -- the thread -----------------------------------------------------------------------------

    def _work(self) -> None:
        rounds = Rounds("capture")
        while not self._stopping.is_set():
            if not self._queue:
                self._wake.wait()
            with rounds.guard():
                self._write()
            self._stopping.wait(_WRITE_S)

    def _write(self) -> None:
        for entry in self._entries():
            try:
                self._store.write(self._server_id, entry)
            except ClustererError as error:
                # The numbers that are missing tell those who tail.
                self._limited.warning("away", time.monotonic(), "cannot mirror packets: %s", error)
                return

    def _entries(self) -> Iterator[list[Mirrored]]:
        """Take what waits, in pieces that fit into an entry, as much as the rate allows."""
        entry: list[Mirrored] = []
        size = 0
        for packet in self._taken():
            if entry and size + len(packet.frame) > MAX_ENTRY:
                yield entry
                entry, size = [], 0
            entry.append(packet)
            size += len(packet.frame)
        if entry:
            yield entry

    def _taken(self) -> Iterator[Mirrored]:
        for _ in range(_MOST_AT_ONCE):
            with contextlib.suppress(IndexError):
                number, at, source, packet = self._queue.popleft()
                self._bytes_out += len(packet.payload)
                yield Mirrored(number, int(at * 1000), source, packet.encode())
                continue
            return
