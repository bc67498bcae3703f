"""The public class: the guide's seven functions, and what an instance needs around them."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

from clusterer.core import Core, Face
from clusterer.listener import Callback, Listing
from clusterer.membership import Node
from clusterer.wire import Packet


class Clusterer(Face):
    """One instance of the cluster: asks about nodes, sends to them, and receives from them.

    Connects to nothing until it is used. All methods may be called from any thread.

    >>> with Clusterer(server_id=1, redis_url="redis://localhost") as cluster:  # doctest: +SKIP
    ...     packet = cluster.packet("mymodule", 1).push_str("hello").build()
    ...     cluster.send_to(1, "bin", packet)
    """

    # -- the guide's functions --------------------------------------------------------------------

    def get_nodes(self, cluster_id: int, proto: str) -> list[Node]:
        """Return the other nodes of a cluster that are up, in order of their machine_id.

        A node that this instance does not reach is not up for it, whatever others see. Empty for
        an unknown cluster. The answer comes from a local snapshot, at most a second
        old; while Redis is away, from the last one. Raises `StateUnavailable` only if there
        never was one, and `InvalidArgument` for a ``proto`` that is no name.
        """
        return self._core.get_nodes(cluster_id, proto)

    def free_nodes(self, nodes: list[Node]) -> None:
        """Empty a list that `get_nodes` returned. Python frees by itself: never necessary."""
        self._core.free_nodes(nodes)

    def set_state(self, cluster_id: int, machine_id: int, state: int, proto: str) -> None:
        """Set another node's state: 0 down, 1 up, 2 a failed attempt was seen (probing).

        0 and 1 count for all senders. 2 is an observation of this instance: the instance skips
        the node, and the node's state changes for all if no other host reaches the node. Visible
        at once in this instance. Raises `UnknownNode` for a node that does not exist or
        is this instance itself, `InvalidArgument` for another state, `StateUnavailable`.
        """
        self._core.set_state(cluster_id, machine_id, state, proto)

    def check(self, cluster_id: int, sockaddr: tuple[Any, ...], server_id: int, proto: str) -> int:
        """Return 1 if a packet from ``sockaddr`` (host, port) by ``server_id`` is a node's, else 0.

        Compares the IP address and the machine_id, never the port; the node's state does not
        matter, and this instance itself is no node. Answers and raises as `get_nodes` does.
        """
        return self._core.check(cluster_id, sockaddr, server_id, proto)

    def get_my_id(self) -> int:
        """Return this instance's machine_id."""
        return self._core.machine_id

    def send_to(self, cluster_id: int, proto: str, packet: Packet) -> int:
        """Have ``packet`` delivered to all nodes of a cluster that are up; return how many are.

        The number is that of `get_nodes`. One round trip to Redis, whatever the number of nodes; a
        delivery worker does the rest.
        Raises `UnknownCluster`, `FrameTooLarge`, `InvalidArgument` for a protocol other than
        "bin" or a packet of negative type, `StateUnavailable`.
        """
        return self._core.sender.send(cluster_id, proto, (packet,))

    def send_many(self, cluster_id: int, proto: str, packets: Sequence[Packet]) -> int:
        """Like `send_to` for several packets, in order.

        The log takes them in sub-batches of up to 512 KiB, one round trip each, and of each all
        packets or none. Without packets it sends nothing, and returns the same. Raises the same; no
        packet is sent where one cannot be.

        ``accepted`` of a `StateUnavailable` is how many packets, from the first on, are in the log
        for certain. Whether the sub-batch that follows them is there as well is not known; the
        rest is not. Sending again from ``packets[accepted:]`` loses none, and may send that
        sub-batch twice.
        """
        return self._core.sender.send(cluster_id, proto, packets)

    def post(self, cluster_id: int, proto: str, packet: Packet) -> int:
        """Take ``packet`` into a buffer and return at once how many nodes are up, 0 if not known.

        A background thread appends the packets that have gathered to the log after at most
        ``flush_interval``. The order with `send_to` and `send_many` of this object is kept. While
        Redis is away the packets wait. Once ``post_buffer`` bytes wait, `post` raises `BufferFull`,
        or with ``post_overflow`` "drop_oldest" drops the oldest. What Redis refuses for good, such
        as a packet for an unknown cluster, is counted and logged. The first call of a process may
        read Redis.
        Raises `FrameTooLarge`, and `InvalidArgument` as `send_to` does.
        """
        return self._core.sender.post(cluster_id, proto, packet)

    def flush(self, timeout: float | None = None) -> bool:
        """Wait until no packet posted before this call waits for Redis.

        Returns False if one still waits after ``timeout`` seconds; None: no limit, 0: only look.
        Raises `InvalidArgument` for another ``timeout`` than a number from 0 to 2**31 - 1.
        """
        return self._core.sender.flush(timeout)

    def register_module(  # noqa: PLR0917 - the guide's six parameters
        self,
        module_name: str,
        proto: str,
        callback: Callback,
        timeout: float,
        auth_check: bool | int,
        cluster_id: int | None,
    ) -> None:
        """Have ``callback(packet_type, receive_info, machine_id)`` called for a module's packets.

        ``packet_type`` is the packet's, or SERVER_TEMP_DISABLED (-1) for a packet that was dropped
        because its node is muted, or SERVER_TIMEOUT (-2; ``receive_info`` is then None) when
        nothing came from a node for more than ``timeout`` seconds (0: never). A node of which the
        module never saw does not time out. The node is then muted for twice that time.
        ``auth_check`` drops packets whose source IP and machine_id are no node of the cluster. All
        callbacks under one name are called.

        Raises `InvalidArgument` (auth_check and a timeout need a ``cluster_id``), and
        `StateUnavailable`; nothing is registered then.
        """
        self._core.register_module(module_name, proto, callback, timeout, auth_check, cluster_id)

    def list_for_others(self, cluster_id: int, listing: Listing) -> None:
        """Let other processes, such as `clusterer console`, see entries of a table of this program.

        The observers call it for calls, contacts and profile counts. Other processes see the table
        while `serve` runs; searches take at most a fifth of a core. Raises `InvalidArgument`.
        """
        self._core.listener.list_for_others(cluster_id, listing)

    # -- around them ------------------------------------------------------------------------------

    def serve(self) -> None:
        """Receive packets and call callbacks until `stop`. Blocks.

        Listens on the address of the instance's own row in each cluster, and waits for one that
        is not provisioned yet. Once per object: raises `ClustererError` the second time.
        """
        self._core.listener.serve()

    def reachable_nodes(self, cluster_id: int, proto: str) -> list[Node]:
        """Return the other nodes that any host reaches, whatever this instance reaches itself.

        Those are the nodes whose state for all, the verdict, is up. Answers and raises as
        `get_nodes` does.
        """
        return self._core.reachable_nodes(cluster_id, proto)

    def close(self) -> None:
        """Stop, send what was posted (for 2 s at most), and let go of all connections.

        Posted packets that Redis has not taken by then are dropped, counted and logged.
        """
        self._core.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def face_of(core: Core) -> Clusterer:
    """Return a blocking face of an instance that has another face."""
    made = Clusterer.__new__(Clusterer)
    made._core = core  # noqa: SLF001 - made here
    return made
