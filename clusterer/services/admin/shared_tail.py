"""The packets that instances received last: one capture per instance, shared by all viewers.

A capture runs while it is viewed. A viewer copies from a bounded buffer, so that a slow viewer, or
many viewers, cost the instance and Redis nothing.
"""

from __future__ import annotations

import itertools
import threading
from collections import deque
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from time import monotonic
from typing import NamedTuple

from clusterer.errors import ClustererError
from clusterer.runtime.rounds import Rounds
from clusterer.services.admin.packets import PacketFilter
from clusterer.services.admin.recording import Record
from clusterer.services.admin.tail import Lost, Tail
from clusterer.store.captures import CaptureStore

KEPT = 2_000
"""Most packets in a buffer."""
KEPT_BYTES = 4_194_304
"""Most bytes of payload in a buffer; the newest packet always stays."""
MOST_CAPTURES = 8
"""Most instances that are captured at the same time."""

IDLE_S = 15.0
"""A capture ends when it was not viewed for so long."""

_START_S = 2.5
"""Longest wait for the first reply of Redis."""
_STOP_S = 3.0


class Captured(NamedTuple):
    """A packet in the buffer."""

    number: int
    """Number of the packet among all that this process captured of the instance, from 1."""
    record: Record


@dataclass(frozen=True, slots=True)
class Captures:
    """The content of a buffer, as one viewer selects it."""

    receiver: int
    packets: tuple[Captured, ...]
    """The selected packets, newest last."""
    selected: int
    """Packets in the buffer that the filter selects; more than ``packets`` has if it is cut."""
    kept: int
    """Packets in the buffer."""
    seen: int
    """Number of the newest packet."""
    lost: int
    """Packets since the capture began that the instance received and did not capture."""
    trouble: str = ""
    """Why no packets arrive, in words; empty without a known cause."""


class SharedTails:
    """The captures of one process. Safe to use from any thread."""

    def __init__(self, store: Callable[[], CaptureStore]) -> None:
        """``store``: makes a store, which the capture closes at its end."""
        self._store = store
        self._captures: dict[int, _Capture] = {}
        self._lock = threading.Lock()

    def view(
        self, receiver: int, wanted: PacketFilter, *, last: int = KEPT, until: int | None = None
    ) -> Captures:
        """Return the last ``last`` packets that ``wanted`` selects, and keep the capture running.

        The first call starts the capture. With ``until``, the number of the newest packet to
        return, the call neither starts nor keeps a capture: the packets of an ended one stay until
        the next capture of the instance. Raises `ClustererError` if Redis does not know the
        instance, if Redis is unavailable, or if too many instances are captured.
        """
        capture = self._capture(receiver, starts=until is None)
        capture.started.wait(_START_S)
        if capture.error is not None and not capture.is_running:
            raise capture.error
        return capture.view(wanted, last, until)

    def close(self) -> None:
        """End all captures."""
        with self._lock:
            running = list(self._captures.values())
            self._captures = {}
        for capture in running:
            capture.stop.set()
        for capture in running:
            capture.thread.join(_STOP_S)

    def _capture(self, receiver: int, *, starts: bool) -> _Capture:
        with self._lock:
            capture = self._captures.get(receiver)
            if capture is not None and not starts:
                return capture
            if capture is not None and capture.is_running:
                capture.stop.renew()
                return capture
            first = capture.seen + 1 if capture is not None else 1
            self._make_room()
            capture = self._captures[receiver] = _Capture(self._store, receiver, first)
            return capture

    def _make_room(self) -> None:
        """Drop the buffers of captures that have ended, if there are too many."""
        while len(self._captures) >= MOST_CAPTURES:
            ended = [at for at, each in self._captures.items() if not each.is_running]
            if not ended:
                names = ", ".join(map(str, self._captures))
                raise ClustererError(
                    f"instances {names} are captured: no more than {MOST_CAPTURES} at the same "
                    f"time; a capture ends {IDLE_S:g} s after its last viewer left"
                )
            del self._captures[ended[0]]


class _Unwatched(threading.Event):
    """Is set by `set`, or when it was not renewed for `IDLE_S`."""

    def __init__(self) -> None:
        super().__init__()
        self.renew()

    def renew(self) -> None:
        self._until = monotonic() + IDLE_S

    def is_set(self) -> bool:
        return super().is_set() or monotonic() > self._until


class _Capture:
    """The buffer of one instance, and the thread that fills it."""

    def __init__(self, store: Callable[[], CaptureStore], receiver: int, first: int) -> None:
        """``first``: number of the first packet, above those of earlier captures."""
        self._receiver = receiver
        self._numbers = itertools.count(first)
        self._buffer: deque[Captured] = deque()
        self._bytes = 0
        self.seen = first - 1
        self._lost = 0
        self._tail: Tail | None = None
        self._lock = threading.Lock()
        self.started = threading.Event()
        self.stop = _Unwatched()
        self.error: ClustererError | None = None
        name = f"capture-{receiver}"
        self.thread = threading.Thread(target=self._work, args=(store,), name=name, daemon=True)
        self.thread.start()

    @property
    def is_running(self) -> bool:
        return self.thread.is_alive() and not self.stop.is_set()

    def view(self, wanted: PacketFilter, last: int, until: int | None) -> Captures:
        with self._lock:
            kept, seen, lost = list(self._buffer), self.seen, self._lost
        upto = seen if until is None else until
        found = [each for each in kept if each.number <= upto and each.record in wanted]
        tail = self._tail
        return Captures(
            self._receiver,
            packets=tuple(found[len(found) - last :] if len(found) > last else found),
            selected=len(found),
            kept=len(kept),
            seen=seen,
            lost=lost,
            trouble=tail.trouble if tail else "Redis has not answered yet",
        )

    # -- the thread -----------------------------------------------------------------------------

    def _work(self, store: Callable[[], CaptureStore]) -> None:
        with Rounds("shared tail").guard():
            try:
                with closing(store()) as captures:
                    self._tail = Tail(captures, self._receiver)
                    self.started.set()
                    self._follow(self._tail)
            except ClustererError as error:
                self.error = error
            finally:
                self.started.set()

    def _follow(self, tail: Tail) -> None:
        for arrivals in tail.arrivals(self.stop):
            with self._lock:
                for arrival in arrivals:
                    if isinstance(arrival, Lost):
                        self._lost += arrival.count
                    else:
                        self._keep(Captured(next(self._numbers), arrival))

    def _keep(self, captured: Captured) -> None:
        self.seen = captured.number
        self._buffer.append(captured)
        self._bytes += len(captured.record.packet.payload)
        while len(self._buffer) > KEPT or (self._bytes > KEPT_BYTES and len(self._buffer) > 1):
            self._bytes -= len(self._buffer.popleft().record.packet.payload)
