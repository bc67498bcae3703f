"""Routes of packets to callbacks: decided once per sender and module, then looked up."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import count
from time import monotonic
from typing import NamedTuple

from clusterer.ids import PROTO_BIN, SERVER_TEMP_DISABLED, SERVER_TIMEOUT
from clusterer.listener.counters import Counters, Tally
from clusterer.listener.dialects import DISABLED, OTHER_CLUSTER, Control, Dialects
from clusterer.listener.drops import CALLBACK_ERRORS, Call, Drops
from clusterer.listener.registrations import (
    Callback,
    Noted,
    ReceiveInfo,
    Registration,
    Registry,
)
from clusterer.membership import Node
from clusterer.membership.addresses import normalised_ip
from clusterer.membership.views import ClusterKey, Views, node_in
from clusterer.store.watches import Notice
from clusterer.wire import Trailer
from clusterer.wire.layout3 import CONTROL, INTERNAL


class Route(NamedTuple):
    """The calls for packets of one module and machine_id from one address."""

    calls: tuple[Call, ...]
    """Called with each packet: callbacks, or a function that counts a drop."""
    noted: tuple[Noted, ...] = ()
    """Registrations, and the control of a cluster, whose last-seen time the packet renews."""
    tally: Tally | None = None
    """Counter of the packets; None: the counter of all others."""


class Dispatcher:
    """Finds routes, and keeps the state that they depend on. Used in the listener's thread.

    ``epoch`` grows whenever older routes may be wrong.
    """

    def __init__(
        self,
        server_id: int,
        registry: Registry,
        counters: Counters,
        dialect3: frozenset[int] = frozenset(),
    ) -> None:
        """Make a dispatcher; ``dialect3`` has the cluster_ids whose nodes are OpenSIPS 3.x."""
        self._server_id = server_id
        self._registry = registry
        self._dialects = Dialects(server_id, dialect3)
        self._views: Views = {}
        self.counters = counters
        self.drops = Drops(counters)
        self._followed: tuple[Registration, ...] = ()
        self._epochs = count(1)
        self.epoch = 0

    def invalidate(self) -> None:
        """Mark all routes as outdated. From any thread."""
        self.epoch = next(self._epochs)

    # -- packets --------------------------------------------------------------------------------

    def control(self, cluster_id: int, control: Control) -> None:
        """Hand the packets of the clusterer itself in an OpenSIPS 3.x cluster to ``control``."""
        self._dialects.controls[cluster_id] = control
        self.invalidate()

    def route(
        self, ip: str, module: str, machine_id: int | None, trailer: Trailer | None = None
    ) -> Route:
        """Return the present route of such packets; ``trailer`` is None in packets of 2.2."""
        fault = self._dialects.fault(ip, machine_id, trailer)
        if fault == DISABLED:  # no warning: the node does not know, and goes on with its pings
            return Route((self.drops.count(fault),))
        if fault or machine_id is None:
            return Route((self.drops.drop(fault, ip, module),))
        control = self._dialects.control(trailer)
        if control is None:
            return self._to_modules(ip, module, machine_id, trailer)
        if module not in CONTROL:
            route = self._to_modules(ip, module, machine_id, trailer)
            return route._replace(noted=(*route.noted, control))
        route = Route(())
        if module in self._registry.by_module:
            route = self._to_modules(ip, module, machine_id, trailer)
        calls = route.calls if route.tally is not None else ()  # else the calls count a drop
        return Route(
            (*calls, control.take),
            route.noted if module == INTERNAL else (*route.noted, control),
            route.tally or self._tally(module, machine_id, trailer),
        )

    def _to_modules(self, ip: str, module: str, machine_id: int, trailer: Trailer | None) -> Route:
        """Return the route to the registrations of ``module``."""
        registrations = self._registry.by_module.get(module)
        if registrations is None:
            return Route((self.drops.unknown_module(ip, module, machine_id),))
        mismatches = [self._dialects.mismatch(each.cluster_id, trailer) for each in registrations]
        if all(mismatches):
            return Route((self._mismatch(mismatches[0], ip, module),))
        calls: list[Call] = []
        noted: list[Registration] = []
        drops: dict[str, Call] = {}  # by reason: a packet counts once for all registrations
        accepted = False
        for registration, mismatch in zip(registrations, mismatches, strict=True):
            if mismatch:
                continue
            if trailer is None and not self._admits(registration, ip, machine_id):
                drops["unknown source"] = self.drops.drop("unknown source", ip, module)
                continue
            accepted = True
            if machine_id in registration.muted:
                drops["silenced"] = self.drops.count("silenced")
                calls.append(_turn_away(registration.callback))
            else:
                calls.append(registration.callback)
                if machine_id in registration.members:
                    noted.append(registration)
        return Route(
            (*drops.values(), *calls),
            tuple(noted),
            self._tally(module, machine_id, trailer) if accepted else None,
        )

    def _mismatch(self, reason: str, ip: str, module: str) -> Call:
        """Return a function that counts a packet which is for no registration of its module.

        No warning for another cluster: nodes send the packets of their modules in all clusters.
        """
        if reason == OTHER_CLUSTER:
            return self.drops.count(reason)
        return self.drops.drop(reason, ip, module)

    def _tally(self, module: str, machine_id: int, trailer: Trailer | None) -> Tally | None:
        """Return the counter of a node's packets, None if no cluster has the node."""
        if not any(machine_id in view.nodes for view in self._views.values()):
            return None
        key = module, machine_id
        return self.counters.received.setdefault(key, Tally(module, opensips_3=trailer is not None))

    def _admits(self, registration: Registration, ip: str, machine_id: int) -> bool:
        """Return whether a packet of 2.2 passes the source check of a registration."""
        if not registration.auth_check:
            return True
        node = self._node(registration, machine_id)
        return node is not None and machine_id != self._server_id and normalised_ip(node.host) == ip

    def _node(self, registration: Registration, machine_id: int) -> Node | None:
        return node_in(ClusterKey(registration.cluster_id, PROTO_BIN), machine_id, self._views)

    # -- snapshot, timeouts ---------------------------------------------------------------------

    def use(self, views: Views) -> None:
        """Use the latest snapshot, and new registrations."""
        if views == self._views and self._registry.all is self._followed:
            return
        self._views, self._followed = views, self._registry.all
        self.drops.views = views
        self._dialects.use(views)
        for registration in self._followed:
            self._follow(registration)
        self.invalidate()

    def _follow(self, registration: Registration) -> None:
        members = members_of(self._views, registration.cluster_id, self._server_id)
        for gone in registration.members - members:
            registration.last_seen.pop(gone, None)
            registration.muted.pop(gone, None)
        registration.members = members

    def take(self, notices: Iterable[Notice], now_ms: int) -> None:
        """Take over which nodes are muted; ``now_ms`` is the present time of Redis."""
        now = monotonic()
        found = {(each.watch.token, each.cluster_id): each for each in self._registry.all}
        for notice in notices:
            registration = found.get((notice.token, notice.cluster_id))
            if registration is not None:
                until = now + (notice.muted_until_ms - now_ms) / 1000
                self.time_out(registration, notice.machine_id, until)

    def time_out(self, registration: Registration, machine_id: int, until: float) -> None:
        """Mute a node for a registration until ``until`` (monotonic), and notify its callback."""
        if machine_id not in registration.members:
            return
        node = self._node(registration, machine_id)
        if node is not None:
            self.drops.muted(node, registration.module, until - monotonic())
        registration.muted[machine_id] = until
        registration.last_seen.pop(machine_id, None)
        self.invalidate()
        self.counters.timeouts += 1
        try:
            registration.callback(SERVER_TIMEOUT, None, machine_id)
        except CALLBACK_ERRORS as error:
            self.drops.callback_failed(
                error, registration.module, registration.callback, None, machine_id
            )

    def unmute(self, now: float) -> None:
        """Unmute the nodes whose time is over at ``now`` (monotonic)."""
        for registration in self._registry.all:
            over = [muted for muted, until in registration.muted.items() if until <= now]
            for machine_id in over:
                del registration.muted[machine_id]
                self.invalidate()

    def unmute_all(self) -> None:
        """Unmute all nodes: Redis has lost the list of muted nodes."""
        for registration in self._registry.all:
            registration.muted.clear()
        self.invalidate()


def _turn_away(callback: Callback) -> Call:
    def turn_away(_kind: int, info: ReceiveInfo, machine_id: int) -> None:
        callback(SERVER_TEMP_DISABLED, info, machine_id)

    return turn_away


def members_of(views: Views, cluster_id: int, server_id: int) -> frozenset[int]:
    """Return the machine_ids of a cluster in ``views`` without ``server_id``."""
    view = views.get(ClusterKey(cluster_id, PROTO_BIN))
    return frozenset(view.nodes if view is not None else ()) - {server_id}
