"""Shows the packets that an instance receives, from outside the instance."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from time import monotonic

from clusterer.errors import ClustererError, StateUnavailable, WireError
from clusterer.services.admin.recording import Record, packet_of
from clusterer.store.captures import ASK_MS, Captured, CaptureStore

log = logging.getLogger(__name__)

_RENEW_S = 1.0
_BLOCK_MS = 300
_AWAY_S = 0.5
_GONE_S = 5.0
"""An instance without a heartbeat for so long does not run."""


@dataclass(frozen=True, slots=True)
class Lost:
    """Packets that the instance received and did not capture: there were too many at once."""

    count: int


Arrival = Record | Lost


def receiver_of(store: CaptureStore, server_id: int) -> int:
    """Return the instance to tail: ``server_id``, or (0) the only instance in Redis.

    Raises `ClustererError` if there are several, or none.
    """
    if server_id:
        return server_id
    known = store.instances()
    if len(known) == 1:
        return known[0]
    if not known:
        raise ClustererError("Redis has no instance: start `clusterer node`")
    names = ", ".join(map(str, known))
    raise ClustererError(f"instances {names} receive packets: choose one with --server-id")


class Tail:
    """Follows one instance until stopped, through outages of Redis and of the instance."""

    def __init__(self, store: CaptureStore, receiver: int) -> None:
        """Raises `ClustererError` if Redis does not know the instance."""
        self._store = store
        self._receiver = receiver
        asked = store.ask(receiver)
        if asked.silent_s is None:
            raise ClustererError(
                f"instance {receiver} does not receive: "
                f"start `clusterer node --server-id {receiver}`"
            )
        self._after = asked.last
        self._asked_at = monotonic()
        self._number: int | None = None
        self.trouble = ""
        """Why no packets arrive, in words; empty without a known cause."""
        self._note(asked.silent_s)

    def arrivals(self, stop: threading.Event) -> Iterator[list[Arrival]]:
        """Yield packets as they arrive, until ``stop`` is set."""
        while not stop.is_set():
            try:
                self._renew()
                self._after, packets = self._store.read(self._receiver, self._after, _BLOCK_MS)
            except StateUnavailable as error:
                self._set_trouble(f"tail: waiting for Redis: {error}")
                stop.wait(_AWAY_S)
                continue
            if packets:
                yield list(self._unfolded(packets))

    def _renew(self) -> None:
        now = monotonic()
        paused_s = now - self._asked_at
        if paused_s < _RENEW_S:
            return
        self._note(self._store.ask(self._receiver).silent_s)
        self._asked_at = now
        if paused_s > ASK_MS / 1000:
            log.warning("tail: paused for %.0f s: packets of that time are missing", paused_s)

    def _note(self, silent_s: float | None) -> None:
        if silent_s is None or silent_s > _GONE_S:
            self._set_trouble(f"instance {self._receiver}: not running; tail waits")
        else:
            self._set_trouble("")

    def _set_trouble(self, trouble: str) -> None:
        if trouble and not self.trouble:
            log.warning("%s", trouble)
        self.trouble = trouble

    def _unfolded(self, packets: list[Captured]) -> Iterator[Arrival]:
        for packet in packets:
            # A restarted instance counts from 1 again.
            missing = packet.number - self._number - 1 if self._number is not None else 0
            self._number = packet.number
            if missing > 0:
                yield Lost(missing)
            at = packet.at_ms / 1000
            try:
                yield Record(at, self._receiver, packet.source, packet_of(packet.frame))
            except WireError as error:
                text = "instance %d: captured packet %d rejected: %s"
                log.warning(text, self._receiver, packet.number, error)
