"""Observer of usrloc: who is registered where, across the cluster."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from clusterer.modules.expiring import Bounds, Change, ExpiringTable, Reason
from clusterer.modules.observing import (
    Clock,
    ModuleCallback,
    Observer,
    Received,
    Registers,
    Watchers,
    monotonic,
    wall,
)
from clusterer.payloads import ContactDeleted, ContactState, RecordDeleted
from clusterer.payloads.message import as_bytes, as_text
from clusterer.payloads.usrloc import MODULE, NEVER

__all__ = ["Bounds", "Change", "Contact", "Reason", "Usrloc"]

Key = tuple[bytes, bytes, bytes]
"""Domain, AoR and contact URI."""


@dataclass(frozen=True, slots=True)
class Contact:
    """Where an address of record is registered."""

    sent: ContactState
    """Everything that was sent, as bytes and numbers."""
    machine_id: int
    """The machine that said so last."""

    @property
    def domain(self) -> str:
        """Name of the table, such as ``location``."""
        return as_text(self.sent.domain)

    @property
    def aor(self) -> str:
        """Address of record."""
        return as_text(self.sent.aor)

    @property
    def uri(self) -> str:
        """Contact URI."""
        return as_text(self.sent.contact)

    @property
    def user_agent(self) -> str:
        return as_text(self.sent.user_agent)

    @property
    def expires(self) -> int:
        """UNIX seconds; 0: never."""
        return self.sent.expires


class Usrloc(Observer):
    """Keeps the contacts that the cluster's machines replicate. Safe to use from any thread.

    Contacts come only when phones register: there is no heartbeat, so no machine is ever given
    up for its silence, and its contacts stay until they expire.
    """

    def __init__(
        self,
        clusterer: Registers,
        cluster_id: int,
        *,
        bounds: Bounds | None = None,
        clock: Clock = monotonic,
        unix_clock: Clock = wall,
    ) -> None:
        """Make the observer; it receives nothing before `start`.

        ``bounds``: how much is kept. ``unix_clock``: what contacts' expiry is compared with.
        """
        super().__init__(clusterer, cluster_id, clock)
        self._unix_clock = unix_clock
        self._contacts: ExpiringTable[Key, Contact] = ExpiringTable(_address, bounds or Bounds())
        self._watchers: Watchers[Contact] = Watchers("contacts")

    def on_contact(self, callback: Callable[[Change[Contact]], object]) -> None:
        """Have ``callback`` called with every change, in the thread that received it."""
        self._watchers.add(callback)

    def contacts(self, aor: str | bytes | None = None, domain: str = "location") -> list[Contact]:
        """Return the contacts of an address of record; without one, all of all domains."""
        now = self._unix_clock()
        if aor is None:
            return self._contacts.values(now)
        return self._contacts.values(now, (as_bytes(domain), as_bytes(aor)))

    def __len__(self) -> int:
        return len(self._contacts)

    def expire(self) -> None:
        with self._telling:
            self._tell(self._contacts.expire(self._unix_clock()), self._watchers)

    def _forget(self, machine_id: int, reason: Reason) -> int:
        return self._drop(self._contacts, self._watchers, machine_id, reason)

    def _registrations(self) -> list[tuple[str, str, ModuleCallback, float]]:
        return [("contacts", MODULE, self._receive, 0)]

    def _receive(self, kind: int, received: Received | None, machine_id: int) -> None:
        message = self._message(kind, received, machine_id)
        if message is None or received is None:
            return
        with self._telling:
            if isinstance(message, ContactState):
                changes = self._put(message, machine_id, received)
            elif isinstance(message, ContactDeleted):
                changes = self._delete(message)
            elif isinstance(message, RecordDeleted):
                keys = self._contacts.known_keys((message.domain, message.aor))
                changes = self._contacts.discard(keys)
            else:
                changes = []  # a record without contacts tells nothing yet
            self._tell(changes, self._watchers)

    def _put(
        self, state: ContactState, machine_id: int, received: Received
    ) -> list[Change[Contact]]:
        now = self._unix_clock()
        key = (state.domain, state.aor, state.contact)
        if self._is_stale(key, state.call_id, state.cseq):
            return []
        if state.expires != NEVER and state.expires <= now:
            self._stats.expired_on_arrival += 1
            what = f"contact {as_text(state.contact)[:60]!r} of {as_text(state.aor)[:60]!r}"
            self._complain_late(what, state.expires, now, machine_id, received)
            return self._contacts.discard([key], Reason.EXPIRED)
        until = math.inf if state.expires == NEVER else state.expires
        size = len(received.packet.payload)
        return self._contacts.put(key, Contact(state, machine_id), until, size, now)

    def _delete(self, message: ContactDeleted) -> list[Change[Contact]]:
        key = (message.domain, message.aor, message.contact)
        if self._is_stale(key, message.call_id, message.cseq):
            return []
        changes = self._contacts.discard([key])
        self._stats.unknown_deletes += not changes
        return changes

    def _is_stale(self, key: Key, call_id: bytes, cseq: int) -> bool:
        """Tell, and count, whether a phone has registered anew since: SIP's own order."""
        known = self._contacts.get(key, -math.inf)
        stale = known is not None and known.sent.call_id == call_id and cseq < known.sent.cseq
        self._stats.stale += stale
        return stale


def _address(key: Key) -> tuple[bytes, bytes]:
    return key[:2]
