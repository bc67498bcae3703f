"""The control of one 3.x cluster: joins and leaves it, and takes its control packets."""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Iterator

from clusterer.ids import PROTO_BIN
from clusterer.listener import ReceiveInfo
from clusterer.member.member import Member
from clusterer.membership import Node, State
from clusterer.membership.views import ClusterKey, ClusterView
from clusterer.runtime.logs import about
from clusterer.store.links import LinkRecord, Place

log = logging.getLogger(__name__)


class ClusterControl:
    """Speaks for the instance in one 3.x cluster, see `clusterer.listener.dialects.Control`.

    The instance is a member of the cluster while it listens on the address of its row there, and no
    operator has taken the row down. Otherwise packets are ignored, as a disabled node does.
    """

    def __init__(self, cluster_id: int, server_id: int, timeout_s: float) -> None:
        self.key = ClusterKey(cluster_id, PROTO_BIN)
        self.last_seen: dict[int, float] = {}
        """machine_id → monotonic time of its last packet of a module since the last turn."""
        self._server_id = server_id
        self._timeout_s = timeout_s
        self._member: Member | None = None
        self._started = 0

    def take(self, kind: int, info: ReceiveInfo, machine_id: int) -> None:
        """Take a control packet, whose cluster, source and destination were checked.

        Raises `WireError` for one whose fields are not what its type says.
        """
        if self._member is not None:
            self._member.received(info.packet)

    def turn(
        self, view: ClusterView | None, addresses: Collection[tuple[str, int]], now: float
    ) -> None:
        """Follow the table and the listening addresses, and do what is due at ``now``."""
        self._follow(view.nodes.get(self._server_id) if view else None, addresses)
        last_seen, self.last_seen = self.last_seen, {}
        if self._member is not None and view is not None:
            self._member.turn(view, last_seen, now)

    def links(self) -> Iterator[tuple[Place, LinkRecord]]:
        """Yield what the instance knows of each other node; nothing while it is no member."""
        return self._member.links() if self._member is not None else iter(())

    def descriptors(self) -> Iterator[int]:
        """Yield the descriptors of the connections."""
        return self._member.descriptors() if self._member is not None else iter(())

    def leave(self) -> None:
        """Close all connections, without a word: nodes of OpenSIPS end like that too."""
        if self._member is not None:
            self._member.close()
            self._member = None
            log.info("instance %d: left cluster %d", self._server_id, self.key.cluster_id)

    def _follow(self, own: Node | None, addresses: Collection[tuple[str, int]]) -> None:
        """Join or leave if the own row, or what is listened on, has changed."""
        if own is not None and (own.state is State.DOWN or own.address not in addresses):
            own = None
        member = self._member
        if member is not None and (own is None or own.address != member.own.address):
            self.leave()
        if self._member is None and own is not None:
            self._join(own)

    def _join(self, own: Node) -> None:
        # The nodes tell a restart by its second: one later than that of an earlier membership.
        self._started = max(self._started + 1, int(time.time()))
        self._member = Member(own, self._started, self._timeout_s)
        log.info(
            "instance %d: joining cluster %d of OpenSIPS 3.x nodes",
            self._server_id,
            own.cluster_id,
            extra=about(own),
        )
