"""Who gets a packet: decided once per sender and module, then looked up."""

from __future__ import annotations

from itertools import count
from time import monotonic

from clusterer.ids import PROTO_BIN, SERVER_TEMP_DISABLED, SERVER_TIMEOUT
from clusterer.listener.counters import Counters, Tally
from clusterer.listener.drops import Call, Troubles, Views
from clusterer.listener.registrations import (
    Callback,
    ReceiveInfo,
    Registration,
    Registry,
)
from clusterer.membership import Node
from clusterer.membership.addresses import normalised_ip
from clusterer.store import ClusterKey


class Route:
    """What happens to the packets of one module and machine_id from one address."""

    __slots__ = ("calls", "noted", "tally")

    def __init__(
        self,
        calls: tuple[Call, ...],
        noted: tuple[Registration, ...] = (),
        tally: Tally | None = None,
    ) -> None:
        self.calls = calls
        """What to call with each packet: callbacks, or what counts a drop."""
        self.noted = noted
        """Registrations for which the packet is a sign of life."""
        self.tally = tally
        """Where the packets are counted; None: with all others."""


class Dispatcher:
    """Routes packets, and keeps what routing depends on. Belongs to the listener's thread.

    ``epoch`` grows whenever routes found before may be wrong.
    """

    def __init__(self, server_id: int, registry: Registry, counters: Counters) -> None:
        self._server_id = server_id
        self._registry = registry
        self._views: Views = {}
        self.counters = counters
        self.troubles = Troubles(counters)
        self._followed: tuple[Registration, ...] = ()
        self._epochs = count(1)
        self.epoch = 0

    def invalidate(self) -> None:
        """Have all routes looked up anew. From any thread."""
        self.epoch = next(self._epochs)

    # -- packets --------------------------------------------------------------------------------

    def route(self, ip: str, module: str, machine_id: int | None) -> Route:
        """Return what happens to such packets, as things stand."""
        if machine_id is None:
            return Route((self.troubles.drop("no machine_id", ip, module),))
        registrations = self._registry.by_module.get(module)
        if registrations is None:
            return Route((self.troubles.unknown_module(ip, module, machine_id),))
        calls: list[Call] = []
        noted: list[Registration] = []
        drops: dict[str, Call] = {}  # by reason: a packet counts once, however many would drop it
        believed = False
        for registration in registrations:
            if registration.auth_check and not self._is_known(registration, ip, machine_id):
                drops["unknown source"] = self.troubles.drop("unknown source", ip, module)
                continue
            believed = True
            if machine_id in registration.silenced:
                drops["silenced"] = self.troubles.count("silenced")
                calls.append(_turn_away(registration.callback))
            else:
                calls.append(registration.callback)
                if machine_id in registration.members:
                    noted.append(registration)
        return Route(
            (*drops.values(), *calls),
            tuple(noted),
            self._tally(module, machine_id) if believed else None,
        )

    def _tally(self, module: str, machine_id: int) -> Tally | None:
        """Return where packets of a node are counted, None for one that is in no table."""
        if not any(machine_id in view.nodes for view in self._views.values()):
            return None
        return self.counters.received.setdefault((module, machine_id), Tally(module))

    def _is_known(self, registration: Registration, ip: str, machine_id: int) -> bool:
        node = self._node(registration, machine_id)
        return node is not None and machine_id != self._server_id and normalised_ip(node.host) == ip

    def _node(self, registration: Registration, machine_id: int) -> Node | None:
        view = self._views.get(ClusterKey(registration.cluster_id, PROTO_BIN))
        return view.nodes.get(machine_id) if view is not None else None

    # -- what routing depends on ----------------------------------------------------------------

    def use(self, views: Views) -> None:
        """Take over the latest snapshot, and registrations that were made since the last one."""
        if views == self._views and self._registry.all is self._followed:
            return
        self._views, self._followed = views, self._registry.all
        self.troubles.views = views
        for registration in self._followed:
            self._follow(registration)
        self.invalidate()

    def _follow(self, registration: Registration) -> None:
        members = members_of(self._views, registration.cluster_id, self._server_id)
        for gone in registration.members - members:
            registration.heard.pop(gone, None)
            registration.silenced.pop(gone, None)
        registration.members = members

    def time_out(self, registration: Registration, machine_id: int, until: float) -> None:
        """Silence a node for a registration until ``until`` (monotonic) and tell its callback."""
        if machine_id not in registration.members:
            return
        node = self._node(registration, machine_id)
        if node is not None:
            self.troubles.silent(node, registration.module, until - monotonic())
        registration.silenced[machine_id] = until
        registration.heard.pop(machine_id, None)
        self.invalidate()
        self.counters.timeouts += 1
        try:
            registration.callback(SERVER_TIMEOUT, None, machine_id)
        except Exception as error:  # noqa: BLE001 - a module's fault must not stop the listener
            self.troubles.callback_failed(
                error, registration.module, registration.callback, None, machine_id
            )

    def end_silences(self, now: float) -> None:
        """Let nodes speak again whose silence is over at ``now`` (monotonic)."""
        for registration in self._registry.all:
            over = [machine for machine, until in registration.silenced.items() if until <= now]
            for machine_id in over:
                del registration.silenced[machine_id]
                self.invalidate()

    def clear_silences(self) -> None:
        """Let everybody speak: Redis has forgotten all silences."""
        for registration in self._registry.all:
            registration.silenced.clear()
        self.invalidate()


def _turn_away(callback: Callback) -> Call:
    def turn_away(_kind: int, info: ReceiveInfo, machine_id: int) -> None:
        callback(SERVER_TEMP_DISABLED, info, machine_id)

    return turn_away


def members_of(views: Views, cluster_id: int, server_id: int) -> frozenset[int]:
    """Return the machine_ids of a cluster in ``views`` without ``server_id``."""
    view = views.get(ClusterKey(cluster_id, PROTO_BIN))
    return frozenset(view.nodes if view is not None else ()) - {server_id}
