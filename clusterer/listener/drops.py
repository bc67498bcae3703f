"""Packets that are dropped: each is counted, and logged at a limited rate with its node."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from time import monotonic
from typing import Any

from clusterer.errors import WireError
from clusterer.listener.counters import Counters
from clusterer.listener.registrations import ReceiveInfo, Source
from clusterer.membership import Node
from clusterer.runtime import forks
from clusterer.runtime.logs import LimitedLog, about, about_machine
from clusterer.store import ClusterKey, ClusterView

log = logging.getLogger(__name__)

LOG_INTERVAL_S = 10.0
"""Between two log lines about the same kind of trouble with the same address."""

UNKNOWN_MODULES_NAMED = 100
"""Modules without a registration that the log names, as long as the process lives."""

Views = Mapping[ClusterKey, ClusterView]
Call = Callable[[int, ReceiveInfo, Any], object]


class Troubles:
    """Counts and logs. Belongs to the listener's thread, but for what says otherwise.

    ``views`` is the snapshot in which log lines find the nodes they are about.
    """

    def __init__(self, counters: Counters) -> None:
        self.views: Views = {}
        self.counters = counters
        self.limited = LimitedLog(log, LOG_INTERVAL_S)
        self._unknown: set[str] = set()
        """Modules without a registration that were named in the log."""
        self._lock = forks.lock()
        self._log = LimitedLog(log, LOG_INTERVAL_S)

    # -- packets ----------------------------------------------------------------------------------

    def count(self, reason: str) -> Call:
        """Return what counts a packet as dropped."""

        def count_it(_kind: int, _info: ReceiveInfo, _machine_id: int | None) -> None:
            self.counters.drops[reason] += 1

        return count_it

    def drop(self, reason: str, ip: str, module: str) -> Call:
        """Return what counts and logs a packet that nobody gets."""

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

    def unknown_module(self, ip: str, module: str, machine_id: int) -> Call:
        """Return what counts a packet of a module that is not registered; log the module once.

        No warning: beside OpenSIPS a node sends what its modules have to say to all, whatever the
        others run.
        """
        if module not in self._unknown and len(self._unknown) < UNKNOWN_MODULES_NAMED:
            self._unknown.add(module)
            log.info(
                "module %.40r is not registered here: its packets are counted and dropped, first "
                "one from %s (machine_id %d)",
                module,
                ip,
                machine_id,
                extra=self._about(ip, machine_id, bin_module=module),
            )
        return self.count("unknown module")

    def negative_type(self, ip: str, kind: int, machine_id: int | None) -> None:
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

    def silent(self, node: Node, module: str, for_s: float) -> None:
        """Log that a node fell silent."""
        log.warning(
            "cluster %d machine %d (%s) fell silent: module %s drops its packets for %.0f s",
            node.cluster_id,
            node.machine_id,
            node.url,
            module,
            for_s,
            extra=about(node, bin_module=module),
        )

    # -- callbacks --------------------------------------------------------------------------------

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
        with self._lock:
            self.counters.callback_errors += 1
            self._log.warning(
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
        with self._lock:
            self.counters.drops["bad payload"] += 1
            self._log.warning(
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
        with self._lock:
            self.counters.drops[reason] += count
            self._log.warning(
                ("left", reason, module),
                monotonic(),
                "%d packets of module %s did not reach callback %r: %s",
                count,
                module,
                call,
                reason,
            )

    def _about(self, ip: str, machine_id: int | None, **more: object) -> dict[str, object]:
        """Return what a log line says of a packet's sender, as far as the table knows it."""
        if machine_id is None:
            return {"source": ip, **more}
        nodes = (node for view in self.views.values() for node in view.nodes.values())
        return about_machine(machine_id, nodes, source=ip, **more)
