"""The public class: the guide's seven functions, and what an instance needs around them."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from time import monotonic
from types import ModuleType, TracebackType
from typing import Any, NamedTuple, Self

import redis

from clusterer.errors import InvalidArgument, StateUnavailable, UnknownCluster, UnknownNode
from clusterer.ids import PROTO_BIN, require_id, require_protocol
from clusterer.listener import Callback, Listener, Listing
from clusterer.membership import Event, Node, State
from clusterer.membership.addresses import normalised_ip
from clusterer.runtime.once import once
from clusterer.settings import Settings, load_settings
from clusterer.store import Cause, ClusterKey, ClusterView, Directory, NodeStore, connect
from clusterer.store.append_commands import sub_batches
from clusterer.store.observing import Observer
from clusterer.store.offers import Offers
from clusterer.store.own_paths import OwnPaths, PathReader
from clusterer.store.packets import PacketLog
from clusterer.store.paths import PathStore
from clusterer.store.receipts import Receipts
from clusterer.wire import Packet, PacketBuilder

log = logging.getLogger(__name__)

_ip = lru_cache(maxsize=4096)(normalised_ip)
_STATE_EVENTS = {0: Event.SET_DOWN, 1: Event.SET_UP, 2: Event.SUSPECTED}


class _Up(NamedTuple):
    """The nodes of a cluster that are up, and what that was decided from."""

    view: ClusterView
    own: OwnPaths
    until: float
    """Monotonic seconds at which the next record becomes void."""
    nodes: tuple[Node, ...]


class Clusterer:
    """One instance of the cluster: asks about nodes, sends to them, and receives from them.

    Connects to nothing until it is used. All methods may be called from any thread.

    >>> with Clusterer(server_id=1, redis_url="redis://localhost") as cluster:  # doctest: +SKIP
    ...     packet = cluster.packet("mymodule", 1).push_str("hello").build()
    ...     cluster.send_to(1, "bin", packet)
    """

    def __init__(
        self, server_id: int | None = None, *, settings: Settings | None = None, **overrides: Any
    ) -> None:
        """Make the instance whose machine_id is ``server_id`` (1 to 2**31 - 1).

        ``settings`` default to those of the configuration file and environment; ``overrides``
        are single settings by name and win. Raises `SettingsError` for a setting that cannot be
        used, `InvalidArgument` for a server_id below 1.
        """
        if server_id is not None:
            overrides["server_id"] = require_id("server_id", server_id)
        if settings is None:
            settings = load_settings(overrides)
        elif overrides:
            settings = replace(settings, **overrides)
        self._id = require_id("server_id", settings.server_id)
        self.settings = settings
        """The settings in force."""
        self.offers = Offers()
        """What was sent, counted where metrics are served."""
        self._offered = self.offers.add if settings.metrics_port else _uncounted
        self._up: dict[ClusterKey, _Up] = {}

    # -- the guide's functions --------------------------------------------------------------------

    def get_nodes(self, cluster_id: int, proto: str) -> list[Node]:
        """Return the other nodes of a cluster that are up, in order of their machine_id.

        A node that this instance does not reach is not up for it, whatever others see. Empty for
        an unknown cluster. The answer comes from a local snapshot, at most a second
        old; while Redis is away, from the last one. Raises `StateUnavailable` only if there
        never was one, and `InvalidArgument` for a ``proto`` that is no name.
        """
        return list(self._up_nodes(ClusterKey(cluster_id, require_protocol(proto))))

    def free_nodes(self, nodes: list[Node]) -> None:
        """Empty a list that `get_nodes` returned. Python frees by itself: never necessary."""
        nodes.clear()

    def set_state(self, cluster_id: int, machine_id: int, state: int, proto: str) -> None:
        """Set another node's state: 0 down, 1 up, 2 a failed attempt was seen (probing).

        0 and 1 count for all senders. 2 is an observation of this instance: the instance skips
        the node, and the node's state changes for all if no other host reaches the node. Visible
        at once in this instance. Raises `UnknownNode` for a node that does not exist or
        is this instance itself, `InvalidArgument` for another state, `StateUnavailable`.
        """
        event = _STATE_EVENTS.get(state) if not isinstance(state, bool) else None
        if event is None:
            raise InvalidArgument(f"state must be 0, 1 or 2, not {state!r}")
        key = ClusterKey(require_id("cluster_id", cluster_id), require_protocol(proto))
        if require_id("machine_id", machine_id) == self._id:
            raise UnknownNode(f"machine {machine_id} of cluster {key} is this instance itself")
        by = f"set_state of machine {self._id}"
        if event is Event.SUSPECTED:
            self._observer.suspect(key, machine_id, self._directory.views(), by)
        else:
            self._nodes.command(key, machine_id, event, Cause(by))
        self._directory.refresh()

    def check(self, cluster_id: int, sockaddr: tuple[Any, ...], server_id: int, proto: str) -> int:
        """Return 1 if a packet from ``sockaddr`` (host, port) by ``server_id`` is a node's, else 0.

        Compares the IP address and the machine_id, never the port; the node's state does not
        matter, and this instance itself is no node. Answers and raises as `get_nodes` does.
        """
        view = self._directory.view(ClusterKey(cluster_id, require_protocol(proto)))
        node = view.nodes.get(server_id) if view is not None else None
        if node is None or server_id == self._id:
            return 0
        host = sockaddr[0]
        return int(host == node.host or _ip(host) == _ip(node.host))

    def get_my_id(self) -> int:
        """Return this instance's machine_id."""
        return self._id

    def send_to(self, cluster_id: int, proto: str, packet: Packet) -> int:
        """Have ``packet`` delivered to all nodes of a cluster that are up; return how many are.

        The number is that of `get_nodes`. One round trip to Redis, whatever the number of nodes; a
        delivery worker does the rest.
        Raises `UnknownCluster`, `FrameTooLarge`, `InvalidArgument` for a protocol other than
        "bin" or a packet of negative type, `StateUnavailable`.
        """
        return self.send_many(cluster_id, proto, (packet,))

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
        if proto != PROTO_BIN and require_protocol(proto) != PROTO_BIN:
            raise InvalidArgument(f"packets can be sent over 'bin' only, not {proto!r}")
        if type(cluster_id) is not int:  # the log holds it as text: 1.0 and True would poison it
            cluster_id = int(require_id("cluster_id", cluster_id))
        key = ClusterKey(cluster_id, PROTO_BIN)
        frames = []
        for packet in packets:
            if not isinstance(packet, Packet):
                raise InvalidArgument(f"only a Packet can be sent, not {packet!r:.80}")
            if packet.type < 0:
                raise InvalidArgument(
                    f"{packet.module} packet of type {packet.type}: negative types are notices "
                    "of the cluster itself and never travel"
                )
            frames.append(packet.encode())
        nodes = self._up_nodes(key, must_exist=True)
        self._append(key, packets, frames)
        return len(nodes)

    def _append(self, key: ClusterKey, packets: Sequence[Packet], frames: list[bytes]) -> None:
        accepted = 0
        try:
            for part in sub_batches(frames):
                if self._log.append(key, part):
                    self._wake_worker()
                accepted += len(part)
        except StateUnavailable as error:
            error.accepted = accepted
            raise
        finally:
            self._offered(key, packets[:accepted], frames[:accepted])

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
        if require_protocol(proto) != PROTO_BIN:
            raise InvalidArgument(f"modules can listen to 'bin' only, not {proto!r}")
        if cluster_id:
            require_id("cluster_id", cluster_id)
        self._listener.register(
            module_name,
            callback,
            timeout_s=timeout,
            auth_check=bool(auth_check),
            cluster_id=cluster_id or None,
        )

    def list_for_others(self, cluster_id: int, listing: Listing) -> None:
        """Let other processes, such as `clusterer console`, see entries of a table of this program.

        The observers call it for calls, contacts and profile counts. Other processes see the table
        while `serve` runs; searches take at most a fifth of a core. Raises `InvalidArgument`.
        """
        self._listener.list_for_others(cluster_id, listing)

    # -- around them ------------------------------------------------------------------------------

    def packet(self, module: str, type: int, version: int = 1) -> PacketBuilder:
        """Return a builder of a packet with this instance's machine_id.

        ``type``: from 0, signed 32 bit, the module's own; ``version``: signed 16 bit. Raises
        `InvalidArgument` for a number out of range or a module name that is no text.
        """
        return PacketBuilder(module, type, self._id, version)

    def serve(self) -> None:
        """Receive packets and call callbacks until `stop`. Blocks.

        Listens on the address of the instance's own row in each cluster, and waits for one that
        is not provisioned yet. Once per object: raises `ClustererError` the second time.
        """
        self._listener.serve()

    def stop(self) -> None:
        """End `serve`; from any thread, also before it was called."""
        self._listener.stop()

    @property
    def listener(self) -> Listener:
        """The receiving side, for its addresses and counters."""
        return self._listener

    def reachable_nodes(self, cluster_id: int, proto: str) -> list[Node]:
        """Return the other nodes that any host reaches, whatever this instance reaches itself.

        Those are the nodes whose state for all, the verdict, is up. Answers and raises as
        `get_nodes` does.
        """
        view = self._directory.view(ClusterKey(cluster_id, require_protocol(proto)))
        return [] if view is None else view.up(without=self._id)

    def snapshot_age_s(self) -> float:
        """Return for how many seconds Redis has not confirmed what `get_nodes` answers from.

        Below one while Redis can be reached; infinite before the first look.
        """
        return self._directory.age_s

    def close(self) -> None:
        """Stop and let go of all connections."""
        for name in ("_listener", "_directory", "_log", "_client", "_jobs_client"):
            part = self.__dict__.get(name)
            if part is not None:
                part.stop() if name == "_listener" else part.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    # -- parts, made on first use -----------------------------------------------------------------

    @once
    def _client(self) -> redis.Redis:
        return connect(self.settings)

    @once
    def _jobs(self) -> ModuleType:
        # A fork waits for `once`: a child whose parent was importing could never import it.
        from clusterer import jobs  # noqa: PLC0415  RQ costs 0.2 s to import; many never need it

        return jobs

    @once
    def _jobs_client(self) -> redis.Redis:
        client: redis.Redis = self._jobs.connect(self.settings)
        return client

    @once
    def _nodes(self) -> NodeStore:
        return NodeStore(self.settings, self._client)

    @once
    def _directory(self) -> Directory:
        return Directory(self._nodes, PathReader(self._paths, self._id))

    @once
    def _paths(self) -> PathStore:
        return PathStore(self.settings, self._client)

    @once
    def _observer(self) -> Observer:
        return Observer(self.settings, self._id, self._client)

    @once
    def _log(self) -> PacketLog:
        return PacketLog(self.settings, self._id)

    @once
    def _listener(self) -> Listener:
        return Listener(self.settings, self._id, self._directory, Receipts(self.settings))

    def _up_nodes(self, key: ClusterKey, *, must_exist: bool = False) -> tuple[Node, ...]:
        view = self._directory.view(key)
        if view is None:
            if must_exist:
                view = self._newly_known(key)
            else:
                return ()
        own = self._directory.own_paths
        known = self._up.get(key)
        same = known is not None and known.view is view and known.own is own
        if known is not None and same and (not own.paths or monotonic() < known.until):
            return known.nodes
        nodes = tuple(
            node
            for node in view.nodes.values()
            if node.machine_id != self._id and own.as_seen(node).state is State.UP
        )
        self._up[key] = _Up(view, own, own.lasts_until(), nodes)
        return nodes

    def _newly_known(self, key: ClusterKey) -> ClusterView:
        self._directory.refresh()
        view = self._directory.view(key)
        if view is None:
            raise UnknownCluster(f"no node of cluster {key} is provisioned")
        return view

    def _wake_worker(self) -> None:
        try:
            self._jobs.enqueue_delivery(self.settings.delivery_queue, self._jobs_client)
        except StateUnavailable as error:
            text = "sender %d: delivery job not enqueued: %s; the sweep enqueues one"
            log.warning(text, self._id, error)


def _uncounted(key: ClusterKey, packets: Sequence[Packet], frames: Sequence[bytes]) -> None:
    """Count nothing: without a metrics port no process shows the counters."""
