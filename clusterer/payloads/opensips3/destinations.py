"""Messages of dispatcher, drouting and load_balancer of OpenSIPS 3.x: states of destinations."""

from __future__ import annotations

from dataclasses import dataclass

from clusterer.errors import InvalidArgument
from clusterer.payloads.opensips3.message import FlatMessage3
from clusterer.wire import Packet

DISPATCHER = "dispatcher-status-repl"
DROUTING = "drouting-status-repl"
LOAD_BALANCER = "load_balancer-status-repl"


@dataclass(frozen=True, slots=True)
class DispatcherStatus(FlatMessage3, module=DISPATCHER, type=1, name="dispatcher status"):
    """A node set or cleared flags of a destination."""

    partition: bytes
    set_id: int
    address: bytes
    """SIP URI of the destination."""
    operation: int
    """1: the flags in ``state`` are set, 0: they are cleared."""
    state: int
    """Bit mask of the changed flags."""


@dataclass(frozen=True, slots=True)
class DispatcherState(FlatMessage3, module=DISPATCHER, name="dispatcher state"):
    """The flags of a destination. Only a chunk of a sync, never a packet."""

    partition: bytes
    set_id: int
    address: bytes
    """SIP URI of the destination."""
    state: int
    """Bit mask of the flags that are set."""

    def encode(self, machine_id: int, cluster_id: int = 1) -> Packet:
        raise InvalidArgument(f"{self.NAME}: only a chunk of a Sync, not a packet")


@dataclass(frozen=True, slots=True)
class GatewayStatus(FlatMessage3, module=DROUTING, type=1, name="drouting gateway status"):
    """The flags of a gateway changed."""

    partition: bytes
    gateway: bytes
    flags: int
    """Bit mask of the gateway's state."""


@dataclass(frozen=True, slots=True)
class CarrierStatus(FlatMessage3, module=DROUTING, type=2, name="drouting carrier status"):
    """The flags of a carrier changed."""

    partition: bytes
    carrier: bytes
    flags: int
    """Bit mask of the carrier's state."""


@dataclass(frozen=True, slots=True)
class BalancedStatus(FlatMessage3, module=LOAD_BALANCER, type=1, name="load_balancer status"):
    """The flags of a destination of the load balancer changed."""

    group: int
    uri: bytes
    flags: int
    """Bit mask of the destination's state."""
