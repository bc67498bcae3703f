"""What the ratelimit module needs of `clusterer.Clusterer`, and what it keeps count of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from clusterer.runtime.logs import NodeLike
from clusterer.wire import Packet, PacketBuilder


class Received(Protocol):
    """What a callback gets with a packet."""

    @property
    def packet(self) -> Packet:
        """The packet itself."""
        ...

    @property
    def source(self) -> tuple[str, int]:
        """IP address and port of the sender's connection."""
        ...


class Cluster(Protocol):
    """The part of the public class that this module stands on."""

    def get_nodes(self, cluster_id: int, proto: str) -> Sequence[NodeLike]: ...

    def packet(self, module: str, type: int, version: int = 1) -> PacketBuilder: ...

    def send_to(self, cluster_id: int, proto: str, packet: Packet) -> int: ...

    def send_many(self, cluster_id: int, proto: str, packets: Sequence[Packet]) -> int: ...

    def register_module(  # noqa: PLR0917  these are the guide's arguments
        self,
        module_name: str,
        proto: str,
        callback: Callable[[int, Received | None, int], object],
        timeout: float,
        auth_check: bool,
        cluster_id: int | None,
    ) -> None: ...


@dataclass(slots=True)
class Stats:
    """What has happened since the module was made."""

    packets_sent: int = 0
    send_failures: int = 0
    """Ticks at which the packets could not be handed over."""
    packets_received: int = 0
    """Packets whose counters were taken, heartbeats included."""
    packets_dropped: int = 0
    """Packets of another version or type."""
    payload_errors: int = 0
    """Packets dropped whole because their fields were not what they must be."""
    pipes_refused: int = 0
    """Received counters for which there was no place."""
    pipes_evicted: int = 0
    """Own pipes that went because there were more than ``max_pipes``."""
    negative_counters: int = 0
    """Received counters below 0: HISTORY pipes of OpenSIPS 2.2 nodes come to such numbers."""
    timeouts: int = 0
    """Times that a machine's counters were invalidated because it had fallen silent."""
