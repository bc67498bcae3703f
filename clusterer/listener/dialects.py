"""Which packets of OpenSIPS 3.x are for this instance: the cluster, source and destination that a
packet names, and the cluster's own packets.
"""

from __future__ import annotations

from typing import Protocol

from clusterer.ids import PROTO_BIN
from clusterer.listener.registrations import ReceiveInfo
from clusterer.membership import State
from clusterer.membership.addresses import normalised_ip
from clusterer.membership.views import ClusterKey, Views
from clusterer.wire import Trailer

OTHER_CLUSTER = "other cluster"
"""Reason to drop a packet: the registrations of its module are for other clusters."""


DISABLED = "disabled node"
"""Reason to drop a packet: an operator took its node, or the own one, down in the cluster."""


class Control(Protocol):
    """The part of the instance that speaks for it in one cluster of OpenSIPS 3.x nodes: links and
    topology. The listener uses a control in its own thread.
    """

    last_seen: dict[int, float]
    """The listener stores here: machine_id → monotonic time of its last accepted packet of any
    capability but `INTERNAL`."""

    def take(self, kind: int, info: ReceiveInfo, machine_id: int) -> object:
        """Take a packet of `CONTROL` whose cluster, source and destination are right."""


class Dialects:
    """Checks packets against the dialect of their cluster. Used in the listener's thread.

    OpenSIPS 3.x accepts a packet from the address of any node of the cluster, because nodes pass on
    the packets of other nodes: the trailer names the sender. So does this class.
    """

    def __init__(self, server_id: int, clusters: frozenset[int]) -> None:
        """Take the cluster_ids of the clusters whose nodes are OpenSIPS 3.x."""
        self._server_id = server_id
        self._clusters = clusters
        self._nodes: dict[int, frozenset[int]] = {}
        self._disabled: dict[int, frozenset[int]] = {}
        self._hosts: dict[int, frozenset[str]] = {}
        self.controls: dict[int, Control] = {}
        """cluster_id → what takes the packets of `CONTROL`."""

    def use(self, views: Views) -> None:
        """Use the latest snapshot."""
        keys = (ClusterKey(cluster_id, PROTO_BIN) for cluster_id in self._clusters)
        found = {key.cluster_id: views[key].nodes for key in keys if key in views}
        self._nodes = {each: frozenset(nodes) for each, nodes in found.items()}
        self._disabled = {
            each: frozenset(i for i, node in nodes.items() if node.state is State.DOWN)
            for each, nodes in found.items()
        }
        self._hosts = {
            each: frozenset(normalised_ip(node.host) for node in nodes.values())
            for each, nodes in found.items()
        }

    def fault(self, ip: str, machine_id: int | None, trailer: Trailer | None) -> str:
        """Return the reason to drop such packets for every registration; empty if there is none."""
        if trailer is None:
            return "no machine_id" if machine_id is None else ""
        cluster_id, destination, source_cluster = trailer[:3]
        if cluster_id is None:
            return "no trailer"
        if cluster_id not in self._clusters:
            return "wrong dialect"
        if source_cluster is not None:
            return "from another cluster"
        fault = self._fault_of_nodes(ip, machine_id, cluster_id)
        if fault:
            return fault
        return "" if destination in {None, self._server_id} else "other destination"

    def _fault_of_nodes(self, ip: str, machine_id: int | None, cluster_id: int) -> str:
        """Return why such packets are not accepted in a 3.x cluster, whatever their destination."""
        known = machine_id in self._nodes.get(cluster_id, ()) and machine_id != self._server_id
        if not known or ip not in self._hosts[cluster_id]:
            return "unknown source"
        down = self._disabled[cluster_id]
        return DISABLED if machine_id in down or self._server_id in down else ""

    def mismatch(self, cluster_id: int, trailer: Trailer | None) -> str:
        """Return why such packets are not for a registration of ``cluster_id`` (0: of none)."""
        if trailer is None:
            return "wrong dialect" if cluster_id in self._clusters else ""
        return "" if cluster_id in {0, trailer.cluster_id} else OTHER_CLUSTER

    def control(self, trailer: Trailer | None) -> Control | None:
        """Return the control of the cluster that such packets are for; None without one."""
        if trailer is None or trailer.cluster_id is None:
            return None
        return self.controls.get(trailer.cluster_id)
