"""Takes the counters that other machines send, and drops what is not right."""

from __future__ import annotations

import logging
from collections.abc import Callable

from clusterer.errors import WireError
from clusterer.ids import SERVER_TEMP_DISABLED, SERVER_TIMEOUT
from clusterer.modules.ratelimit.cluster import Received, Stats
from clusterer.modules.ratelimit.table import PipeTable, Receipt
from clusterer.payloads.ratelimit import PIPE_COUNTERS, VERSION, PipeRecord, read_records

log = logging.getLogger(__name__)

QUIET_S = 10.0
"""Seconds between two log lines about bad packets: a bad peer sends ten a second."""


MAX_KNOWN = 4_096
MAX_KNOWN_BYTES = 2_048
"""Packets remembered, and bytes of the largest payload; senders begin another at 1,400 bytes."""

Key = tuple[int, int, int, bytes]
"""machine_id, type, version and payload of a packet."""


class Receiver:
    """The receiving half of the module; an instance is its callback."""

    def __init__(self, table: PipeTable, stats: Stats, clock: Callable[[], float]) -> None:
        self._table = table
        self._stats = stats
        self._clock = clock
        self._quiet_until = clock()
        self._known: dict[Key, Receipt | None] = {}
        """Packets that were read (None: once); senders repeat them."""

    def __call__(self, packet_type: int, received: Received | None, machine_id: int) -> None:
        """Take a packet, or the notice that ``machine_id`` fell silent.

        What a silenced machine sends is no news: its counters have been invalidated already.
        """
        if packet_type == SERVER_TIMEOUT:
            self._table.forget_machine(machine_id)
            self._stats.timeouts += 1
            log.warning("machine %d fell silent: its pipe counters count no more", machine_id)
        elif packet_type != SERVER_TEMP_DISABLED and received is not None:
            self._take(received, machine_id)

    def _take(self, received: Received, machine_id: int) -> None:
        packet = received.packet
        key = (machine_id, packet.type, packet.version, packet.payload)
        known = self._known.get(key)
        if known is not None:
            if self._table.repeat(machine_id, known, self._clock()):
                self._stats.packets_received += 1
                return
            self._known.clear()
        if packet.type != PIPE_COUNTERS or packet.version != VERSION:
            self._stats.packets_dropped += 1
            self._complain(
                received, machine_id, f"type {packet.type} in version {packet.version} is unknown"
            )
            return
        try:
            records = read_records(packet)
        except WireError as error:
            self._stats.payload_errors += 1
            self._complain(received, machine_id, str(error))
            return
        refused = self._table.receive(machine_id, records, self._clock())
        self._stats.packets_received += 1
        if not refused:
            self._remember(key, records)
        else:
            self._stats.pipes_refused += refused
            self._complain(received, machine_id, f"no place for {refused} of its pipes")

    def _remember(self, key: Key, records: list[PipeRecord]) -> None:
        """Keep what a packet meant once it has come a second time."""
        if key not in self._known:
            if len(key[3]) <= MAX_KNOWN_BYTES:
                if len(self._known) >= MAX_KNOWN:
                    self._known.clear()
                self._known[key] = None
        else:
            self._known[key] = self._table.receipt(records)

    def _complain(self, received: Received, machine_id: int, fault: str) -> None:
        now = self._clock()
        if now < self._quiet_until:
            return
        self._quiet_until = now + QUIET_S
        host, port = received.source
        log.warning("ratelimit packet of machine %d at %s:%d: %s", machine_id, host, port, fault)
