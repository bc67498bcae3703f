"""What observers of other modules' packets share: registering, decoding, counting, telling."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from types import TracebackType
from typing import Generic, Protocol, Self, TypeVar

from clusterer.errors import WireError
from clusterer.ids import PROTO_BIN, SERVER_TEMP_DISABLED, SERVER_TIMEOUT, require_id
from clusterer.modules.expiring import Change, ExpiringTable, Reason
from clusterer.modules.ratelimit.timer import Timer
from clusterer.payloads import Message, decode
from clusterer.runtime import forks
from clusterer.runtime.logs import LimitedLog, NodeLike, about_machine
from clusterer.wire import Packet

log = logging.getLogger(__name__)

QUIET_S = 10.0
"""Seconds between two log lines about the same trouble."""

SWEEP_S = 1.0
"""Seconds between two looks at what has expired: how late its callbacks may be."""

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")
Clock = Callable[[], float]


class Received(Protocol):
    """What a callback gets with a packet."""

    @property
    def packet(self) -> Packet:
        """The packet itself."""
        ...

    @property
    def source(self) -> tuple[str, int]:
        """IP address and port of the sender's connection."""
        ...


class Said(Protocol):
    """An entry that a machine is known to have said."""

    @property
    def machine_id(self) -> int:
        """The machine that said so last."""
        ...


S = TypeVar("S", bound=Said)

ModuleCallback = Callable[[int, Received | None, int], object]


class Registers(Protocol):
    """The part of `clusterer.Clusterer` that observers stand on."""

    def get_nodes(self, cluster_id: int, proto: str) -> Sequence[NodeLike]: ...

    def register_module(  # noqa: PLR0917  these are the guide's arguments
        self,
        module_name: str,
        proto: str,
        callback: ModuleCallback,
        timeout: float,
        auth_check: bool,
        cluster_id: int | None,
    ) -> None: ...


@dataclass(slots=True)
class ObserverStats:
    """What has happened since the observer was made."""

    messages: int = 0
    """Messages taken."""
    payload_errors: int = 0
    """Packets dropped because their fields were not what they must be."""
    ignored: int = 0
    """Packets of a type or version that is unknown here."""
    unknown_deletes: int = 0
    """Deletions of what was not there: it was missed, had expired, or was evicted."""
    stale: int = 0
    """Messages older than what is known already."""
    expired: int = 0
    expired_on_arrival: int = 0
    """Contacts whose time was over when they came: mostly the clocks of the machines differ."""
    evicted: int = 0
    """Entries that went because the table was full."""
    timeouts: int = 0
    """Times that a machine fell silent."""
    callback_errors: int = 0
    """Callbacks that raised."""


class Observer:
    """Base of the observers: registers with auth_check, as 2.2's receivers do, and tells changes.

    What a callback does wrong is counted and logged at a limited rate. A packet with a bad payload
    is counted, and told to the listener, which logs it and goes on.
    """

    def __init__(self, clusterer: Registers, cluster_id: int, clock: Clock) -> None:
        """Observe ``cluster_id``; ``clock``: seconds that never go back."""
        self._clusterer = clusterer
        self._cluster_id = require_id("cluster_id", cluster_id)
        self._clock = clock
        self._stats = ObserverStats()
        self._limited = LimitedLog(log, QUIET_S)
        self._telling = forks.rlock()
        self._starting = forks.lock()
        self._registered: list[str] = []
        self._timer: Timer | None = None
        forks.renew_in_child(self)

    def renew_in_child(self) -> None:
        """Be stopped in a forked child, where the thread is missing and no packet comes."""
        self._timer = None

    @property
    def stats(self) -> ObserverStats:
        """A copy of what was counted so far."""
        return replace(self._stats)

    def start(self) -> None:
        """Receive from now on, and look for what expires, until `stop`.

        Packets arrive only while the instance's `serve` runs. Raises `StateUnavailable`, and may
        be tried again, if Redis is away and the module cannot be registered.
        """
        with self._starting:
            for name, module, callback, timeout in self._registrations():
                if name not in self._registered:
                    self._clusterer.register_module(
                        module, PROTO_BIN, callback, timeout, True, self._cluster_id
                    )
                    self._registered.append(name)
            if self._timer is None:
                self._timer = Timer(type(self).__name__.lower(), self.expire, SWEEP_S)

    def stop(self) -> None:
        """End the looking for what expires. Packets that still come are taken as before."""
        with self._starting:
            timer, self._timer = self._timer, None
        if timer is not None:
            timer.stop()

    def expire(self) -> None:
        """Remove what is over and tell the callbacks; `start` has this done every second."""
        raise NotImplementedError

    def forget(self, machine_id: int) -> int:
        """Remove all that ``machine_id`` said last, and tell the callbacks; return how much went.

        For a node that was restarted and has lost what it had: it deletes nothing by itself.
        What it says from then on is taken again. Raises `InvalidArgument` for no machine_id.
        """
        return self._forget(require_id("machine_id", machine_id), Reason.FORGOTTEN)

    def _forget(self, machine_id: int, reason: Reason) -> int:
        """Remove all that ``machine_id`` said last; return how much went."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def _registrations(self) -> Iterable[tuple[str, str, ModuleCallback, float]]:
        """Return (our name for it, module, callback, timeout) of what to register."""
        raise NotImplementedError

    def _message(self, kind: int, received: Received | None, machine_id: int) -> Message | None:
        """Return the message of a packet; None, counted, if there is none to take.

        Raises `WireError`, counted as well, for a bad payload.
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
            self._complain("unknown", machine_id, received, fault)
            return None
        self._stats.messages += 1
        return message

    def _complain_late(
        self, what: str, expires: float, now: float, machine_id: int, received: Received
    ) -> None:
        """Log that ``what`` was over when it came; both times are UNIX seconds."""
        fault = (
            f"{what} expired at {_utc(expires)}, and here it is {_utc(now)}: "
            "compare the clocks of both machines"
        )
        self._complain("late", machine_id, received, fault)

    def _complain(self, about: str, machine_id: int, received: Received, fault: str) -> None:
        self._limited.warning(
            (about, machine_id),
            self._clock(),
            "dropped a packet of machine %d at %s: %s",
            machine_id,
            received.source[0],
            fault,
            extra=lambda: about_machine(
                machine_id, self._clusterer.get_nodes(self._cluster_id, PROTO_BIN)
            ),
        )

    def _drop(
        self,
        table: ExpiringTable[K, S],
        watchers: Watchers[S],
        machine_id: int,
        reason: Reason,
    ) -> int:
        """Remove what ``machine_id`` said last from a table, and tell; return how much went."""
        with self._telling:
            changes = table.discard_where(lambda entry: entry.machine_id == machine_id, reason)
            self._tell(changes, watchers)
        return len(changes)

    def _tell(self, changes: Iterable[Change[V]], watchers: Watchers[V]) -> None:
        for change in changes:
            self._stats.expired += change.reason is Reason.EXPIRED
            if change.reason is Reason.EVICTED:
                self._stats.evicted += 1
                self._limited.warning(
                    ("evicted", watchers.name),
                    self._clock(),
                    "no more place for %s: the longest unheard of go",
                    watchers.name,
                )
            self._stats.callback_errors += watchers.tell(change, self._limited, self._clock())


class Watchers(Generic[V]):
    """Callbacks that want to hear of changes of ``name``."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._callbacks: tuple[Callable[[Change[V]], object], ...] = ()

    def add(self, callback: Callable[[Change[V]], object]) -> None:
        """Call ``callback`` with every change from now on."""
        self._callbacks = (*self._callbacks, callback)

    def tell(self, change: Change[V], limited: LimitedLog, now: float) -> int:
        """Call all callbacks; return how many raised. That is logged at a limited rate."""
        failed = 0
        for callback in self._callbacks:
            try:
                callback(change)
            except Exception as error:  # noqa: BLE001  a callback's fault is no reason to stop
                failed += 1
                limited.warning(
                    ("callback", callback, type(error)),
                    now,
                    "callback %r failed with a change of %s",
                    callback,
                    self.name,
                    error=error,
                )
        return failed


def _utc(seconds: float) -> str:
    """Return a UNIX time as text; one that no calendar has as its number."""
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (ValueError, OverflowError, OSError):
        return f"UNIX time {seconds:.0f}"


monotonic: Clock = time.monotonic
wall: Clock = time.time
