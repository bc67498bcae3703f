"""Takes the counters that other machines send, and drops what is not right."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable

from clusterer.errors import WireError
from clusterer.ids import SERVER_TEMP_DISABLED, SERVER_TIMEOUT
from clusterer.modules.ratelimit.cluster import Received, Stats
from clusterer.modules.ratelimit.table import PipeTable
from clusterer.payloads.message import as_text
from clusterer.payloads.ratelimit import PIPE_COUNTERS, VERSION, Fields, read_records
from clusterer.runtime.logs import LimitedLog, NodeLike, about_machine

log = logging.getLogger(__name__)

QUIET_S = 10.0
"""Seconds between two log lines about refused pipes: peers send them ten times a second."""


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
            records = read_records(packet)
        except WireError:
            self._stats.payload_errors += 1
            raise
        refused = self._table.receive(machine_id, records, self._clock())
        self._stats.packets_received += 1
        if refused:
            self._note_refused(refused, records, received, machine_id)

    def _note_refused(
        self, refused: int, records: Iterable[Fields], received: Received, machine_id: int
    ) -> None:
        negative = [record for record in records if record[3] < 0]
        no_place = refused - len(negative)
        self._stats.negative_counters += len(negative)
        self._stats.pipes_refused += no_place
        if no_place:
            fault = f"no place for {no_place} of its pipes"
            self._complain("no place", fault, received, machine_id)
        if negative:
            name, _, _, counter = negative[0]
            fault = f"counter {counter} of pipe {as_text(name)[:60]!r} left out"
            if len(negative) > 1:
                fault += f", and those of {len(negative) - 1} more"
            advice = "HISTORY pipes that OpenSIPS 2.2 nodes share grow until they overflow"
            self._complain("negative", f"{fault}: {advice}", received, machine_id)

    def _complain(self, about: str, fault: str, received: Received, machine_id: int) -> None:
        self._log.warning(
            about,
            self._clock(),
            "ratelimit packet of machine %d at %s:%d: %s",
            machine_id,
            *received.source,
            fault,
            extra=lambda: about_machine(machine_id, self._nodes()),
        )
