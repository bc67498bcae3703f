"""Sends the own counters to the cluster and receives those of other instances."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from clusterer.errors import ClustererError, StateUnavailable, WireError
from clusterer.ids import PROTO_BIN, SERVER_TEMP_DISABLED, SERVER_TIMEOUT
from clusterer.modules.base import Clock, Cluster
from clusterer.modules.ratelimit.table import PipeTable
from clusterer.payloads.message import as_text
from clusterer.payloads.ratelimit import (
    MODULE,
    PIPE_COUNTERS,
    VERSION,
    Fields,
    build_packets,
    read_records,
)
from clusterer.runtime.logs import LimitedLog, NodeLike, about_machine_id
from clusterer.wire import PacketBuilder

if TYPE_CHECKING:
    from clusterer.listener import ReceiveInfo

log = logging.getLogger(__name__)

QUIET_S = 10.0
"""Seconds between two log lines about refused pipes: peers send them ten times a second."""

STALE_S = 3.0
"""Seconds without an answer of Redis after which no counters are posted."""


@dataclass(slots=True)
class Stats:
    """Counts since the module was made."""

    packets_sent: int = 0
    send_failures: int = 0
    """Rounds in which sending failed."""
    packets_received: int = 0
    """Packets whose counters were taken, heartbeats included."""
    packets_dropped: int = 0
    """Packets of another version or type."""
    payload_errors: int = 0
    """Packets dropped because a field was invalid."""
    pipes_refused: int = 0
    """Received counters for which there was no room."""
    pipes_evicted: int = 0
    """Own pipes evicted because there were more than ``max_pipes``."""
    negative_counters: int = 0
    """Received counters below 0: HISTORY pipes of OpenSIPS 2.2 nodes reach such numbers."""
    timeouts: int = 0
    """Module timeouts, each of which invalidated the counters of one node."""


class Sender:
    """Sends all own counters to one cluster."""

    def __init__(
        self, clusterer: Cluster, cluster_id: int, table: PipeTable, stats: Stats, clock: Clock
    ) -> None:
        self._clusterer = clusterer
        self._cluster_id = cluster_id
        self._table = table
        self._stats = stats
        self._clock = clock
        self._failure: type[Exception] | None = None

    def send(self) -> bool:
        """Send all own counters, at least a heartbeat; return whether that succeeded.

        Never raises. A failure is logged when it begins, when its kind changes, and when it ends.
        """
        try:
            sent = self._send()
        except Exception as error:  # noqa: BLE001  the heartbeat must go on; it is logged
            self._stats.send_failures += 1
            self._log_failure(error)
            return False
        self._stats.packets_sent += sent
        if self._failure is not None:
            self._failure = None
            log.info("ratelimit cluster %d: sending pipe counters resumed", self._cluster_id)
        return True

    def _send(self) -> int:
        self._require_redis()
        records = (pipe.record for pipe in self._table.own_pipes(self._clock()))
        packets = list(build_packets(self._new_packet, records))
        for packet in packets:
            self._clusterer.post(self._cluster_id, PROTO_BIN, packet)
        return len(packets)

    def _require_redis(self) -> None:
        """Raise `StateUnavailable` while Redis is away.

        The next round replaces the counters: those of a long outage would only fill the buffer.
        """
        self._clusterer.get_nodes(self._cluster_id, PROTO_BIN)  # reads Redis if it never did
        age_s = self._clusterer.snapshot_age_s()
        if age_s > STALE_S:
            raise StateUnavailable(f"Redis has not answered for {age_s:.0f} s")

    def _new_packet(self) -> PacketBuilder:
        return self._clusterer.packet(MODULE, PIPE_COUNTERS, VERSION)

    def _log_failure(self, error: Exception) -> None:
        if self._failure is type(error):
            return
        self._failure = type(error)
        log.warning(
            "ratelimit cluster %d: sending pipe counters failed: %s; retrying",
            self._cluster_id,
            error,
            exc_info=None if isinstance(error, ClustererError) else error,
        )


class Receiver:
    """Puts the counters of received packets into the table; `take` is the module's callback."""

    def __init__(
        self,
        table: PipeTable,
        stats: Stats,
        clock: Clock,
        nodes: Callable[[], Iterable[NodeLike]],
    ) -> None:
        """``nodes`` returns those of the cluster, for log lines."""
        self._table = table
        self._stats = stats
        self._clock = clock
        self._nodes = nodes
        self._log = LimitedLog(log, QUIET_S)

    def take(self, packet_type: int, received: ReceiveInfo | None, machine_id: int) -> None:
        """Take a packet, or the notice that the module timeout of ``machine_id`` passed.

        Packets of a muted node are ignored: its counters have been invalidated already. Raises
        `WireError` for an invalid packet, of which nothing is taken; the listener logs it.
        """
        if packet_type == SERVER_TIMEOUT:
            self._table.forget_node(machine_id)
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
        self, refused: int, records: Iterable[Fields], received: ReceiveInfo, machine_id: int
    ) -> None:
        negative = [record for record in records if record[3] < 0]
        no_room = refused - len(negative)
        self._stats.negative_counters += len(negative)
        self._stats.pipes_refused += no_room
        if no_room:
            self._warn("no room", f"no room for {no_room} pipes", received, machine_id)
        if negative:
            name, _, _, counter = negative[0]
            fault = f"negative counter {counter} of pipe {as_text(name)[:60]!r} ignored"
            if len(negative) > 1:
                fault += f", with those of {len(negative) - 1} more pipes"
            advice = "HISTORY pipes that OpenSIPS 2.2 nodes share grow until they overflow"
            self._warn("negative", f"{fault}: {advice}", received, machine_id)

    def _warn(self, about: str, fault: str, received: ReceiveInfo, machine_id: int) -> None:
        self._log.warning(
            about,
            self._clock(),
            "ratelimit node %d at %s:%d: %s",
            machine_id,
            *received.source,
            fault,
            extra=lambda: about_machine_id(machine_id, self._nodes()),
        )
