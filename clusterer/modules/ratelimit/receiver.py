"""Takes the counters that other machines send, and drops what is not right."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable

from clusterer.errors import WireError
from clusterer.ids import SERVER_TEMP_DISABLED, SERVER_TIMEOUT
from clusterer.logs import LimitedLog, about_machine
from clusterer.logs.fields import NodeLike
from clusterer.modules.ratelimit.cluster import Received, Stats
from clusterer.modules.ratelimit.table import PipeTable
from clusterer.payloads.ratelimit import PIPE_COUNTERS, VERSION, read_records

log = logging.getLogger(__name__)

QUIET_S = 10.0
"""Seconds between two log lines about pipes without a place: peers send them ten times a second."""


class Receiver:
    """The receiving half of the module; `take` is its callback."""

    def __init__(
        self,
        table: PipeTable,
        stats: Stats,
        clock: Callable[[], float],
        nodes: Callable[[], Iterable[NodeLike]],
    ) -> None:
        """``nodes``: those of the cluster, for log lines."""
        self._table = table
        self._stats = stats
        self._clock = clock
        self._nodes = nodes
        self._log = LimitedLog(log, QUIET_S)

    def take(self, packet_type: int, received: Received | None, machine_id: int) -> None:
        """Take a packet, or the notice that ``machine_id`` fell silent.

        What a silenced machine sends is no news: its counters have been invalidated already.
        Raises `WireError` for a packet that is not understood, of which nothing is taken; the
        listener tells.
        """
        if packet_type == SERVER_TIMEOUT:
            self._table.forget_machine(machine_id)
            self._stats.timeouts += 1
            return
        if packet_type == SERVER_TEMP_DISABLED or received is None:
            return
        packet = received.packet
        if packet_type != PIPE_COUNTERS or packet.version != VERSION:
            self._stats.packets_dropped += 1
            raise WireError(f"ratelimit type {packet_type} in version {packet.version} is unknown")
        try:
            refused = self._table.receive(machine_id, read_records(packet), self._clock())
        except WireError:
            self._stats.payload_errors += 1
            raise
        self._stats.packets_received += 1
        if refused:
            self._stats.pipes_refused += refused
            self._log.warning(
                "no place",
                self._clock(),
                "ratelimit packet of machine %d at %s:%d: no place for %d of its pipes",
                machine_id,
                *received.source,
                refused,
                extra=lambda: about_machine(machine_id, self._nodes()),
            )
