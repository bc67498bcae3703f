"""Dropped packets and failed callbacks: counted, and logged at a limited rate."""

from __future__ import annotations

import logging
from asyncio import CancelledError
from collections.abc import Callable
from time import monotonic
from typing import Any

from clusterer.errors import WireError
from clusterer.listener.counters import Counters
from clusterer.listener.registrations import ReceiveInfo, Source
from clusterer.membership import Node
from clusterer.membership.views import Views
from clusterer.runtime import forks
from clusterer.runtime.logs import LimitedLog, about, about_machine_id

log = logging.getLogger(__name__)

LOG_INTERVAL_S = 10.0
"""Between two log lines about the same kind of error and the same address."""

UNKNOWN_MODULES_NAMED = 100
"""Modules without a registration that one process names in the log."""

Call = Callable[[int, ReceiveInfo, Any], object]

CALLBACK_ERRORS = (Exception, CancelledError)
"""Errors of a plain function that concern its module alone. asyncio cancels no plain function: the
function asked for the result of a task that was cancelled."""


class Drops:
    """Counts and logs dropped packets. Used in the listener's thread, except where noted.

    ``views`` is the snapshot from which log lines take the fields of a node.
    """

    def __init__(self, counters: Counters) -> None:
        self.views: Views = {}
        self.counters = counters
        self.limited = LimitedLog(log, LOG_INTERVAL_S)
        self._unknown: set[str] = set()
        """Modules without a registration that the log has named."""
        self._lock = forks.lock()
        self._log = LimitedLog(log, LOG_INTERVAL_S)

    # -- packets ----------------------------------------------------------------------------------

    def count(self, reason: str) -> Call:
        """Return a function that counts a dropped packet."""

        def count_it(_kind: int, _info: ReceiveInfo, _machine_id: int | None) -> None:
            self.counters.drops[reason] += 1

        return count_it

    def drop(self, reason: str, ip: str, module: str) -> Call:
        """Return a function that counts and logs a dropped packet."""

        def drop(kind: int, info: ReceiveInfo, machine_id: int | None) -> None:
            self.counters.drops[reason] += 1
            self.limited.warning(
                (reason, ip),
                monotonic(),
                "listener: packet from %s dropped: %s (module %.40r, type %d, machine_id %s)",
                ip,
                reason,
                module,
                kind,
                machine_id,
                extra=lambda: self._about(ip, machine_id, bin_module=module, reason=reason),
            )

        return drop

    def unknown_module(self, ip: str, module: str, machine_id: int) -> Call:
        """Return a function that counts a dropped packet; log a module without registration once.

        No warning: an OpenSIPS node sends the packets of its modules to all nodes, also to those
        that do not run the module.
        """
        if module not in self._unknown and len(self._unknown) < UNKNOWN_MODULES_NAMED:
            self._unknown.add(module)
            log.info(
                "module %.40r: not registered in this instance: packets counted and dropped, the "
                "first from %s (machine_id %d)",
                module,
                ip,
                machine_id,
                extra=self._about(ip, machine_id, bin_module=module),
            )
        return self.count("unknown module")

    def negative_type(self, ip: str, kind: int, machine_id: int | None) -> None:
        """Count a packet with a negative type: those types are reserved for notices."""
        self.counters.drops["negative type"] += 1
        self.limited.warning(
            ("negative type", ip),
            monotonic(),
            "listener: packet from %s dropped: negative type %d (machine_id %s)",
            ip,
            kind,
            machine_id,
            extra=lambda: self._about(ip, machine_id),
        )

    def muted(self, node: Node, module: str, for_s: float) -> None:
        """Log a module timeout of a node."""
        log.warning(
            "node %d of cluster %d (%s): module timeout: module %s drops its packets for %.0f s",
            node.machine_id,
            node.cluster_id,
            node.url,
            module,
            for_s,
            extra=about(node, bin_module=module),
        )

    # -- callbacks --------------------------------------------------------------------------------

    def callback_failed(
        self,
        error: BaseException,
        module: str,
        call: object,
        source: Source,
        machine_id: int | None,
    ) -> None:
        """Count and log an error of a callback. From any thread.

        A `WireError` is an error of the peer: its packet is a dropped packet.
        """
        if isinstance(error, WireError) and source is not None:
            self._bad_payload(error, module, source[0], machine_id)
            return
        peer = source or ("this instance", 0)
        with self._lock:
            self.counters.callback_errors += 1
            self._log.warning(
                ("callback", module, type(error)),
                monotonic(),
                "callback %r of module %s: failed with a packet from %s",
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
                "listener: packet from %s dropped: bad payload (module %.40r, machine_id %s): %s",
                ip,
                module,
                machine_id,
                error,
                extra=lambda: self._about(ip, machine_id, bin_module=module, reason="bad payload"),
            )

    def packets_left(self, reason: str, module: str, call: object, count: int) -> None:
        """Count and log dropped packets of a callback queue. From any thread."""
        if not count:
            return
        with self._lock:
            self.counters.drops[reason] += count
            self._log.warning(
                ("left", reason, module),
                monotonic(),
                "callback %r of module %s: %d packets dropped: %s",
                call,
                module,
                count,
                reason,
            )

    def _about(self, ip: str, machine_id: int | None, **more: object) -> dict[str, object]:
        """Return the log fields of a packet's sender."""
        if machine_id is None:
            return {"source": ip, **more}
        nodes = (node for view in self.views.values() for node in view.nodes.values())
        return about_machine_id(machine_id, nodes, source=ip, **more)
