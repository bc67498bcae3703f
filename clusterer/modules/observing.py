"""Base of the observers: decodes packets, keeps counts, and calls callbacks with changes."""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar

from clusterer.errors import WireError
from clusterer.ids import SERVER_TEMP_DISABLED, SERVER_TIMEOUT, require_id
from clusterer.modules.base import Clock, Cluster, Module, ModuleCallback, Timer
from clusterer.modules.expiring import Bounds, Change, ExpiringTable, Reason
from clusterer.payloads import Message, decode
from clusterer.payloads.message import as_text
from clusterer.runtime import forks
from clusterer.runtime.logs import LimitedLog, about_machine_id

if TYPE_CHECKING:
    from clusterer.listener import Listing, ReceiveInfo

log = logging.getLogger(__name__)

QUIET_S = 10.0
"""Seconds between two log lines about the same fault."""

SWEEP_S = 1.0
"""Seconds between two calls of `Observer.expire`: the greatest delay of its callbacks."""


K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class SentText:
    """An attribute: a bytes field of the message ``sent`` as text (surrogateescape)."""

    def __init__(self, field: str) -> None:
        self._field = field

    def __get__(self, entry: Any, kind: type | None = None) -> str:
        """Return the text."""
        return as_text(getattr(entry.sent, self._field))


class WatchedTable(ExpiringTable[K, V]):
    """An expiring table with a name, a clock, and callbacks for its changes."""

    def __init__(
        self, name: str, group: Callable[[K], Hashable], bounds: Bounds | None, clock: Clock
    ) -> None:
        """``clock``: the one that entries' ``until`` refers to."""
        super().__init__(group, bounds or Bounds())
        self.name = name
        self.clock = clock
        self.callbacks: tuple[Callable[[Change[V]], object], ...] = ()

    def watch(self, callback: Callable[[Change[V]], object]) -> None:
        """Add a callback for all changes from now on."""
        self.callbacks = (*self.callbacks, callback)


@dataclass(slots=True)
class ObserverStats:
    """Counts since the observer was made."""

    messages: int = 0
    """Messages taken."""
    payload_errors: int = 0
    """Packets dropped because a field was invalid."""
    ignored: int = 0
    """Packets of an unknown type or version."""
    unknown_deletes: int = 0
    """Deletions of unknown entries: missed, expired or evicted earlier."""
    stale: int = 0
    """Messages older than the known entry."""
    expired: int = 0
    expired_on_arrival: int = 0
    """Contacts that had expired when they arrived: mostly the clocks of the hosts differ."""
    evicted: int = 0
    """Entries evicted because the table was full."""
    timeouts: int = 0
    """Module timeouts."""
    callback_errors: int = 0
    """Callbacks that raised."""


class Observer(Module):
    """Base of the observers: registers with auth_check, as 2.2's receivers do.

    A callback that raises is counted and logged at a limited rate. A packet with an invalid
    payload is counted, and reported to the listener, which logs it and continues.
    """

    def __init__(
        self,
        clusterer: Cluster,
        module: str,
        cluster_id: int,
        callbacks: Sequence[tuple[ModuleCallback, float]],
        clock: Clock,
        *tables: WatchedTable[Any, Any],
    ) -> None:
        """Observe ``module`` in ``cluster_id``; ``clock``: monotonic seconds."""
        self._name = type(self).__name__.lower()
        timer = Timer(self._name, self.expire, SWEEP_S)
        require_id("cluster_id", cluster_id)
        super().__init__(clusterer, module, cluster_id, callbacks, auth_check=True, timer=timer)
        self._clock = clock
        self._tables = tables
        self._stats = ObserverStats()
        self._limited = LimitedLog(log, QUIET_S)
        self._telling = forks.rlock()

    def start(self) -> None:
        super().start()
        for listing in self._listings():
            self._clusterer.list_for_others(self._cluster_id or 0, listing)

    def _listings(self) -> Iterable[Listing]:
        """Return what other processes may see of the tables."""
        return ()

    @property
    def stats(self) -> ObserverStats:
        """A copy of the counts since the observer was made."""
        return replace(self._stats)

    def expire(self) -> None:
        """Remove expired entries and call the callbacks; the timer does so every second."""
        with self._telling:
            for table in self._tables:
                self._tell(table, table.expire(table.clock()))

    def forget(self, machine_id: int) -> int:
        """Remove all entries that ``machine_id`` sent last; return how many.

        For a node that was restarted and has lost its calls or contacts: it sends no deletions.
        Later messages of the node are taken again. Raises `InvalidArgument` for an invalid
        machine_id.
        """
        require_id("machine_id", machine_id)
        return sum(self._drop(table, machine_id, Reason.FORGOTTEN) for table in self._tables)

    def _message(self, kind: int, received: ReceiveInfo | None, machine_id: int) -> Message | None:
        """Return the message of a packet, None for a notice or an unknown message.

        Raises `WireError` for an invalid payload.
        """
        if received is None or kind in {SERVER_TIMEOUT, SERVER_TEMP_DISABLED}:
            return None
        packet = received.packet
        try:
            message = decode(packet)
        except WireError:
            self._stats.payload_errors += 1
            raise
        if message is None:
            self._stats.ignored += 1
            fault = f"{packet.module} type {packet.type} in version {packet.version} is unknown"
            self._warn("unknown", machine_id, received, fault)
            return None
        self._stats.messages += 1
        return message

    def _warn_expired(
        self, what: str, expires: float, now: float, machine_id: int, received: ReceiveInfo
    ) -> None:
        """Log that ``what`` had expired when it arrived; both times are UNIX seconds."""
        fault = (
            f"{what} expired at {_utc(expires)}, the local time is {_utc(now)}; "
            "compare the clocks of both hosts"
        )
        self._warn("expired", machine_id, received, fault)

    def _warn(self, about: str, machine_id: int, received: ReceiveInfo, fault: str) -> None:
        self._limited.warning(
            (about, machine_id),
            self._clock(),
            "%s node %d at %s: packet dropped: %s",
            self._name,
            machine_id,
            received.source[0],
            fault,
            extra=lambda: about_machine_id(machine_id, self._nodes()),
        )

    def _drop(self, table: WatchedTable[Any, Any], machine_id: int, reason: Reason) -> int:
        """Remove the entries of ``table`` that ``machine_id`` sent last; return how many."""
        with self._telling:
            changes = table.discard_where(lambda entry: entry.machine_id == machine_id, reason)
            self._tell(table, changes)
        return len(changes)

    def _tell(self, table: WatchedTable[Any, V], changes: Iterable[Change[V]]) -> None:
        """Count the changes of ``table`` and call its callbacks."""
        for change in changes:
            self._stats.expired += change.reason is Reason.EXPIRED
            if change.reason is Reason.EVICTED:
                self._stats.evicted += 1
                self._limited.warning(
                    ("evicted", table.name),
                    self._clock(),
                    "%s: table of %s full: least recently updated entries evicted",
                    self._name,
                    table.name,
                )
            for callback in table.callbacks:
                self._call(callback, change, table.name)

    def _call(self, callback: Callable[[Change[V]], object], change: Change[V], what: str) -> None:
        try:
            callback(change)
        except Exception as error:  # noqa: BLE001  a callback's fault must not stop the observer
            self._stats.callback_errors += 1
            self._limited.warning(
                ("callback", callback, type(error)),
                self._clock(),
                "%s: callback %r failed for a change of %s",
                self._name,
                callback,
                what,
                error=error,
            )


def _utc(seconds: float) -> str:
    """Return a UNIX time as text, beyond the calendar's range as a number."""
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (ValueError, OverflowError, OSError):
        return f"UNIX time {seconds:.0f}"
