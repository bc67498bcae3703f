"""Sends the own counters to the cluster; whatever happens, the next tick tries again."""

from __future__ import annotations

import logging
from collections.abc import Callable

from clusterer.errors import ClustererError
from clusterer.ids import PROTO_BIN
from clusterer.modules.ratelimit.cluster import Cluster, Stats
from clusterer.modules.ratelimit.table import PipeTable
from clusterer.payloads.ratelimit import MODULE, PIPE_COUNTERS, VERSION, build_packets
from clusterer.wire import PacketBuilder

log = logging.getLogger(__name__)


class Sender:
    """The sending half of the module."""

    def __init__(
        self,
        clusterer: Cluster,
        cluster_id: int,
        table: PipeTable,
        stats: Stats,
        clock: Callable[[], float],
    ) -> None:
        self._clusterer = clusterer
        self._cluster_id = cluster_id
        self._table = table
        self._stats = stats
        self._clock = clock
        self._failure: type[Exception] | None = None

    def send(self) -> bool:
        """Send all own counters, at least a heartbeat; return whether they were handed over.

        Never raises. A failure is logged when it begins, when its kind changes, and when it ends.
        """
        try:
            sent = self._send()
        except Exception as error:  # noqa: BLE001  nothing may end the heartbeat; it is logged
            self._stats.send_failures += 1
            self._note_failure(error)
            return False
        self._stats.packets_sent += sent
        if self._failure is not None:
            self._failure = None
            log.info("pipe counters are sent to cluster %d again", self._cluster_id)
        return True

    def _send(self) -> int:
        records = (pipe.record for pipe in self._table.own_pipes(self._clock()))
        packets = list(build_packets(self._new_packet, records))
        if len(packets) == 1:
            self._clusterer.send_to(self._cluster_id, PROTO_BIN, packets[0])
        else:
            self._clusterer.send_many(self._cluster_id, PROTO_BIN, packets)
        return len(packets)

    def _new_packet(self) -> PacketBuilder:
        return self._clusterer.packet(MODULE, PIPE_COUNTERS, VERSION)

    def _note_failure(self, error: Exception) -> None:
        if self._failure is type(error):
            return
        self._failure = type(error)
        log.warning(
            "pipe counters cannot be sent to cluster %d, trying again at every tick: %s",
            self._cluster_id,
            error,
            exc_info=None if isinstance(error, ClustererError) else error,
        )
