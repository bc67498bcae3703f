"""Who gets a packet: decided once per sender and module, then looked up."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from itertools import count
from time import monotonic
from typing import Any

from clusterer.errors import WireError
from clusterer.ids import PROTO_BIN, SERVER_TEMP_DISABLED, SERVER_TIMEOUT
from clusterer.listener.addresses import normalised_ip
from clusterer.listener.counters import Counters, Tally
from clusterer.listener.registrations import (
    Callback,
    ReceiveInfo,
    Registration,
    Registry,
    Source,
)
from clusterer.logs import LimitedLog, about
from clusterer.membership import Node
from clusterer.store import ClusterKey, ClusterView

log = logging.getLogger(__name__)

LOG_INTERVAL_S = 10.0
"""Between two log lines about the same kind of trouble with the same address."""

Views = Mapping[ClusterKey, ClusterView]
Call = Callable[[int, ReceiveInfo, Any], object]


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
        self.limited = LimitedLog(log, LOG_INTERVAL_S)
        self._followed: tuple[Registration, ...] = ()
        self._troubles = threading.Lock()
        self._troubles_log = LimitedLog(log, LOG_INTERVAL_S)
        self._epochs = count(1)
        self.epoch = 0

    def invalidate(self) -> None:
        """Have all routes looked up anew. From any thread."""
        self.epoch = next(self._epochs)

    # -- packets --------------------------------------------------------------------------------

    def route(self, ip: str, module: str, machine_id: int | None) -> Route:
        """Return what happens to such packets, as things stand."""
        if machine_id is None:
            return Route((self._drop("no machine_id", ip, module),))
        registrations = self._registry.by_module.get(module)
        if registrations is None:
            return Route((self._drop("unknown module", ip, module),))
        calls: list[Call] = []
        noted: list[Registration] = []
        drops: dict[str, Call] = {}  # by reason: a packet counts once, however many would drop it
        believed = False
        for registration in registrations:
            if registration.auth_check and not self._is_known(registration, ip, machine_id):
                drops["unknown source"] = self._drop("unknown source", ip, module)
                continue
            believed = True
            if machine_id in registration.silenced:
                drops["silenced"] = self._count("silenced")
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

    def drop_negative(self, ip: str, kind: int, machine_id: int | None) -> None:
        """Count a packet whose type would imitate our own notices."""
        self.counters.drops["negative type"] += 1
        self.limited.warning(
            ("negative type", ip),
            monotonic(),
            "dropped a packet of type %d from %s (machine_id %s): types below 0 are ours",
            kind,
            ip,
            machine_id,
            extra=lambda: self._about(ip, machine_id),
        )

    def callback_failed(
        self, error: Exception, module: str, call: object, source: Source, machine_id: int | None
    ) -> None:
        """Count and, at a limited rate, log what a callback raised. From any thread.

        A `WireError` is the peer's fault, and its packet a dropped one.
        """
        if isinstance(error, WireError) and source is not None:
            self._bad_payload(error, module, source[0], machine_id)
            return
        peer = source or ("ourselves", 0)
        with self._troubles:
            self.counters.callback_errors += 1
            self._troubles_log.warning(
                ("callback", module, type(error)),
                monotonic(),
                "callback %r of module %s failed with a packet from %s",
                call,
                module,
                peer[0],
                error=error,
                extra=lambda: self._about(peer[0], machine_id, bin_module=module),
            )

    def _bad_payload(self, error: WireError, module: str, ip: str, machine_id: int | None) -> None:
        with self._troubles:
            self.counters.drops["bad payload"] += 1
            self._troubles_log.warning(
                ("bad payload", module, ip),
                monotonic(),
                "dropped a packet from %s: bad payload (module %.40r, machine_id %s): %s",
                ip,
                module,
                machine_id,
                error,
                extra=lambda: self._about(ip, machine_id, bin_module=module, reason="bad payload"),
            )

    def packets_left(self, reason: str, module: str, call: object, count: int) -> None:
        """Count and, at a limited rate, log packets a callback did not get. From any thread."""
        if not count:
            return
        with self._troubles:
            self.counters.drops[reason] += count
            self._troubles_log.warning(
                ("left", reason, module),
                monotonic(),
                "%d packets of module %s did not reach callback %r: %s",
                count,
                module,
                call,
                reason,
            )

    def _is_known(self, registration: Registration, ip: str, machine_id: int) -> bool:
        node = self._node(registration, machine_id)
        return node is not None and machine_id != self._server_id and normalised_ip(node.host) == ip

    def _node(self, registration: Registration, machine_id: int) -> Node | None:
        view = self._views.get(ClusterKey(registration.cluster_id, PROTO_BIN))
        return view.nodes.get(machine_id) if view is not None else None

    def _about(self, ip: str, machine_id: int | None, **more: object) -> dict[str, object]:
        """Return what a log line says of a packet's sender, as far as the table knows it."""
        fields = {"source": ip, **more}
        for view in self._views.values():
            node = view.nodes.get(machine_id) if machine_id is not None else None
            if node is not None:
                return about(node, **fields)
        return fields if machine_id is None else {**fields, "machine_id": machine_id}

    def _count(self, reason: str) -> Call:
        def count_it(_kind: int, _info: ReceiveInfo, _machine_id: int | None) -> None:
            self.counters.drops[reason] += 1

        return count_it

    def _drop(self, reason: str, ip: str, module: str) -> Call:
        def drop(kind: int, info: ReceiveInfo, machine_id: int | None) -> None:
            self.counters.drops[reason] += 1
            self.limited.warning(
                (reason, ip),
                monotonic(),
                "dropped a packet from %s: %s (module %.40r, type %d, machine_id %s)",
                ip,
                reason,
                module,
                kind,
                machine_id,
                extra=lambda: self._about(ip, machine_id, bin_module=module, reason=reason),
            )

        return drop

    # -- what routing depends on ----------------------------------------------------------------

    def use(self, views: Views) -> None:
        """Take over the latest snapshot, and registrations that were made since the last one."""
        if views == self._views and self._registry.all is self._followed:
            return
        self._views, self._followed = views, self._registry.all
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
        self._log_silence(registration, machine_id, until - monotonic())
        registration.silenced[machine_id] = until
        registration.heard.pop(machine_id, None)
        self.invalidate()
        self.counters.timeouts += 1
        try:
            registration.callback(SERVER_TIMEOUT, None, machine_id)
        except Exception as error:  # noqa: BLE001 - a module's fault must not stop the listener
            self.callback_failed(
                error, registration.module, registration.callback, None, machine_id
            )

    def _log_silence(self, registration: Registration, machine_id: int, for_s: float) -> None:
        node = self._node(registration, machine_id)
        if node is not None:
            log.warning(
                "cluster %d machine %d (%s) fell silent: module %s drops its packets for %.0f s",
                node.cluster_id,
                machine_id,
                node.url,
                registration.module,
                for_s,
                extra=about(node, bin_module=registration.module),
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
