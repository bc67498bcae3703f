"""Stand-ins for `clusterer.Clusterer`, for modules that are built on top of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from clusterer.errors import WireError
from clusterer.ids import PROTO_BIN
from clusterer.listener import Listing, ReceiveInfo
from clusterer.membership import Node
from clusterer.settings import Settings
from clusterer.wire import FrameDecoder, Packet, PacketBuilder


class FakeClock:
    """Seconds that pass only when a test says so."""

    def __init__(self, now: float = 1_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


def received(packet: Packet) -> ReceiveInfo:
    """Return what a callback gets with ``packet``."""
    return ReceiveInfo(("127.0.0.2", 40_000), packet)


class FakeCluster:
    """An instance that records what is sent and raises ``fault``, if there is one."""

    def __init__(self, server_id: int = 1) -> None:
        self.server_id = server_id
        self.settings = Settings()
        self.sent: list[tuple[int, Packet]] = []
        self.nodes: list[Node] = []
        self.registered: list[dict[str, Any]] = []
        self.listings: dict[str, Listing] = {}
        self.fault: Exception | None = None
        self.age_s = 0.0
        self.bad_payloads: list[str] = []
        self.on_send: Callable[[], None] = lambda: None

    def get_nodes(self, cluster_id: int, proto: str) -> list[Node]:
        return [found for found in self.nodes if found.cluster_id == cluster_id]

    def reachable_nodes(self, cluster_id: int, proto: str) -> list[Node]:
        return self.get_nodes(cluster_id, proto)

    def snapshot_age_s(self) -> float:
        return self.age_s

    def packet(self, module: str, type: int, version: int = 1) -> PacketBuilder:
        return PacketBuilder(module, type, self.server_id, version)

    def post(self, cluster_id: int, proto: str, packet: Packet) -> int:
        assert proto == PROTO_BIN
        self.on_send()
        if self.fault is not None:
            raise self.fault
        # Over the wire and back: what cannot be encoded must not pass here either.
        self.sent += [(cluster_id, back) for back in FrameDecoder().feed(packet.encode())]
        return 1

    def register_module(  # noqa: PLR0917  these are the guide's arguments
        self,
        module_name: str,
        proto: str,
        callback: Callable[[int, Any, int], object],
        timeout: float,
        auth_check: bool,
        cluster_id: int | None,
    ) -> None:
        if self.fault is not None:
            raise self.fault
        self.registered.append(
            {
                "module_name": module_name,
                "proto": proto,
                "callback": callback,
                "timeout": timeout,
                "auth_check": auth_check,
                "cluster_id": cluster_id,
            }
        )

    def list_for_others(self, cluster_id: int, listing: Listing) -> None:
        self.listings[listing.kind] = listing

    def deliver(self, packet: Packet, machine_id: int | None = None) -> None:
        """Have the registered callbacks called as the listener does, which survives `WireError`."""
        sender = packet.machine_id if machine_id is None else machine_id
        for registered in self.registered:
            try:
                registered["callback"](packet.type, received(packet), sender)
            except WireError as error:
                self.bad_payloads.append(str(error))

    def notify(self, notice: int, machine_id: int, info: ReceiveInfo | None = None) -> None:
        """Have the registered callbacks called with SERVER_TIMEOUT or SERVER_TEMP_DISABLED."""
        for registered in self.registered:
            registered["callback"](notice, info, machine_id)
