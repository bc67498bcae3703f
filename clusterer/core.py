"""One instance without a face: what `clusterer.Clusterer` and `clusterer.aio.Clusterer` share."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from types import ModuleType
from typing import Any

import redis

from clusterer.errors import InvalidArgument, StateUnavailable, UnknownNode
from clusterer.ids import PROTO_BIN, require_id, require_protocol
from clusterer.listener import Callback, Listener
from clusterer.member import Members
from clusterer.membership import Event, Node, State
from clusterer.runtime.once import once
from clusterer.sending import InstanceView, Sender
from clusterer.settings import Settings
from clusterer.settings.sources import load_settings
from clusterer.store import Cause, ClusterKey, Directory, NodeStore, connect
from clusterer.store.labels import Offers
from clusterer.store.observing import Observer
from clusterer.store.paths import PathStore
from clusterer.store.receipts import Receipts
from clusterer.wire import PacketBuilder, PacketBuilder3

log = logging.getLogger(__name__)

_STATE_EVENTS = {0: Event.SET_DOWN, 1: Event.SET_UP, 2: Event.SUSPECTED}


class Core:
    """The parts of an instance, made on first use, and what the functions of a face do."""

    def __init__(
        self,
        server_id: int | None = None,
        settings: Settings | None = None,
        overrides: Mapping[str, Any] | None = None,
    ) -> None:
        """The arguments are those of `clusterer.Clusterer`."""
        overrides = dict(overrides or {})
        if server_id is not None:
            overrides["server_id"] = require_id("server_id", server_id)
        if settings is None:
            settings = load_settings(overrides)
        elif overrides:
            settings = replace(settings, **overrides)
        self.machine_id = require_id("server_id", settings.server_id)
        self.settings = settings
        self._dialect3 = settings.dialect3
        self.offers = Offers()

    # -- functions ------------------------------------------------------------------------------

    def get_nodes(self, cluster_id: int, proto: str) -> list[Node]:
        return list(self.view.up(_key(cluster_id, proto)))

    def free_nodes(self, nodes: list[Node]) -> None:
        if not isinstance(nodes, list):
            raise InvalidArgument(f"nodes must be a list, not {nodes!r:.80}")
        nodes.clear()

    def reachable_nodes(self, cluster_id: int, proto: str) -> list[Node]:
        return self.view.reachable(_key(cluster_id, proto))

    def check(self, cluster_id: int, sockaddr: object, server_id: int, proto: str) -> int:
        key = _key(cluster_id, proto)
        if not isinstance(sockaddr, tuple | list) or not sockaddr or type(sockaddr[0]) is not str:
            raise InvalidArgument(f"sockaddr must be a host and a port, not {sockaddr!r:.80}")
        if not isinstance(server_id, int):
            raise InvalidArgument(f"server_id must be an integer, not {server_id!r:.80}")
        return int(self.view.has_node_at(key, sockaddr, server_id))

    def set_state(self, cluster_id: int, machine_id: int, state: int, proto: str) -> None:
        event = _STATE_EVENTS.get(state) if type(state) in {int, State} else None
        if event is None:
            raise InvalidArgument(f"state must be 0, 1 or 2, not {state!r}")
        key = ClusterKey(require_id("cluster_id", cluster_id), require_protocol(proto))
        if require_id("machine_id", machine_id) == self.machine_id:
            raise UnknownNode(f"node {machine_id} of cluster {key} is this instance itself")
        by = f"set_state of instance {self.machine_id}"
        if event is Event.SUSPECTED:
            self._observer.suspect(key, machine_id, self.directory.views(), by)
        else:
            self._nodes.command(key, machine_id, event, Cause(by))
        self.directory.refresh()

    def register_module(  # noqa: PLR0917 - the guide's six parameters
        self,
        module_name: str,
        proto: str,
        callback: Callback,
        timeout: float,
        auth_check: bool | int,
        cluster_id: int | None,
    ) -> None:
        if require_protocol(proto) != PROTO_BIN:
            raise InvalidArgument(f"modules can listen to 'bin' only, not {proto!r}")
        if cluster_id:
            require_id("cluster_id", cluster_id)
        self.listener.register(
            module_name,
            callback,
            timeout_s=timeout,
            auth_check=bool(auth_check),
            cluster_id=cluster_id or None,
        )

    def packet(self, module: str, type: int, version: int, cluster_id: int | None) -> PacketBuilder:
        if cluster_id is not None and require_id("cluster_id", cluster_id) in self._dialect3:
            return PacketBuilder3(module, type, self.machine_id, version, cluster_id)
        return PacketBuilder(module, type, self.machine_id, version)

    def close(self) -> None:
        """Stop, flush, and let go of all connections of the parts that were made."""
        for name in ("listener", "sender", "directory", "_client", "_jobs_client"):
            part = self.__dict__.get(name)
            if part is not None:
                part.stop() if name == "listener" else part.close()

    # -- parts, made on first use ---------------------------------------------------------------

    @once
    def directory(self) -> Directory:
        return Directory(self._nodes, self._paths, self.machine_id)

    @once
    def view(self) -> InstanceView:
        return InstanceView(self.machine_id, self.directory)

    @once
    def sender(self) -> Sender:
        return Sender(self.settings, self.machine_id, self.view, self.offers, self._enqueue_job)

    @once
    def listener(self) -> Listener:
        # Most instances have no 3.x cluster, and need nothing of `clusterer.member`.
        companion = self._members if self.settings.dialect3 else None
        receipts = Receipts(self.settings)
        return Listener(self.settings, self.machine_id, self.directory, receipts, companion)

    @once
    def _members(self) -> Members:
        return Members(self.settings, self.machine_id)

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
    def _paths(self) -> PathStore:
        return PathStore(self.settings, self._client)

    @once
    def _observer(self) -> Observer:
        return Observer(self.settings, self.machine_id, self._client)

    def _enqueue_job(self) -> None:
        try:
            self._jobs.enqueue_delivery(self.settings.delivery_queue, self._jobs_client)
        except StateUnavailable as error:
            text = "sender %d: delivery job not enqueued: %s; the sweep enqueues one"
            log.warning(text, self.machine_id, error)


class Face:
    """What is the same in both faces: it answers from memory, and does not block."""

    def __init__(
        self, server_id: int | None = None, *, settings: Settings | None = None, **overrides: Any
    ) -> None:
        """Make the instance whose machine_id is ``server_id`` (1 to 2**31 - 1).

        ``settings`` default to those of the configuration file and environment; ``overrides``
        are single settings by name and win. Raises `SettingsError` for a setting that cannot be
        used, `InvalidArgument` for a server_id below 1.
        """
        self._core = Core(server_id, settings, overrides)

    def packet(
        self, module: str, type: int, version: int = 1, cluster_id: int | None = None
    ) -> PacketBuilder:
        """Return a builder of a packet with this instance's machine_id.

        ``type``: from 0, signed 32 bit, the module's own; ``version``: signed 16 bit.
        ``cluster_id``: the cluster that the packet is for, needed for a cluster of
        ``opensips_3_clusters``, whose packets are those of OpenSIPS 3.x: ``module`` is then the
        name of a capability. All other packets are those of 2.2, which any cluster of 2.2 gets.
        Raises `InvalidArgument` for a number out of range or a module name that is no text.
        """
        return self._core.packet(module, type, version, cluster_id)

    def stop(self) -> None:
        """End `serve`; from any thread, also before it was called."""
        self._core.listener.stop()

    @property
    def listener(self) -> Listener:
        """The receiving side, for its addresses and counters."""
        return self._core.listener

    def snapshot_age_s(self) -> float:
        """Return for how many seconds Redis has not confirmed what `get_nodes` answers from.

        Below one while Redis can be reached; infinite before the first look.
        """
        return self._core.directory.age_s

    @property
    def settings(self) -> Settings:
        """The settings in force."""
        return self._core.settings

    @property
    def offers(self) -> Offers:
        """What was sent, counted where metrics are served."""
        return self._core.offers

    @property
    def sender(self) -> Sender:
        """The sending side, for the counts of posted packets."""
        return self._core.sender


def _key(cluster_id: int, proto: str) -> ClusterKey:
    """Return the key of a cluster, which need not exist."""
    if not isinstance(cluster_id, int):
        raise InvalidArgument(f"cluster_id must be an integer, not {cluster_id!r:.80}")
    return ClusterKey(cluster_id, require_protocol(proto))
