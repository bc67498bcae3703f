"""Observer of usrloc: the contacts registered across the cluster."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from clusterer.listener import Listing
from clusterer.modules.base import Clock, Cluster
from clusterer.modules.expiring import Bounds, Change, Reason
from clusterer.modules.observing import Observer, SentText, WatchedTable
from clusterer.payloads import ContactDeleted, ContactState, RecordDeleted
from clusterer.payloads.message import as_bytes, as_text
from clusterer.payloads.usrloc import MODULE, NEVER

if TYPE_CHECKING:
    from clusterer.listener import ReceiveInfo

__all__ = ["Bounds", "Change", "Contact", "Reason", "Usrloc"]

Key = tuple[bytes, bytes, bytes]
"""Domain, AoR and contact URI."""


@dataclass(frozen=True, slots=True)
class Contact:
    """A contact of an address of record."""

    sent: ContactState
    """The message with all its fields, as bytes and numbers."""
    machine_id: int
    """The node that sent the contact last."""

    domain = SentText("domain")
    """Name of the table, such as ``location``."""
    aor = SentText("aor")
    """Address of record."""
    uri = SentText("contact")
    """Contact URI."""
    user_agent = SentText("user_agent")

    @property
    def expires(self) -> int:
        """UNIX seconds; 0: never."""
        return self.sent.expires


class Usrloc(Observer):
    """Keeps the contacts that the cluster's nodes replicate. Safe to use from any thread.

    A node sends contacts only when phones register. There is no heartbeat, so there is no module
    timeout: contacts stay until they are deleted or expire.
    """

    def __init__(
        self,
        clusterer: Cluster,
        cluster_id: int,
        *,
        bounds: Bounds | None = None,
        clock: Clock = time.monotonic,
        unix_clock: Clock = time.time,
    ) -> None:
        """Make the observer; it receives nothing before `start`.

        ``bounds``: greatest size of the table. ``unix_clock``: decides when contacts expire.
        """
        self._contacts: WatchedTable[Key, Contact] = WatchedTable(
            "contacts", lambda key: key[:2], bounds, unix_clock
        )
        callbacks = [(self._receive, 0.0)]
        super().__init__(clusterer, MODULE, cluster_id, callbacks, clock, self._contacts)

    def on_contact(self, callback: Callable[[Change[Contact]], object]) -> None:
        """Call ``callback`` with every change, in the thread that received the packet."""
        self._contacts.watch(callback)

    def contacts(self, aor: str | bytes | None = None, domain: str = "location") -> list[Contact]:
        """Return the contacts of an address of record; without ``aor`` all of all domains."""
        group = None if aor is None else (as_bytes(domain), as_bytes(aor))
        return self._contacts.values(self._contacts.clock(), group)

    def __len__(self) -> int:
        return len(self._contacts)

    def _listings(self) -> Iterable[Listing]:
        yield Listing(
            "contacts",
            self.__len__,
            self.contacts,
            haystack=lambda contact: b"\0".join(
                getattr(contact.sent, field)
                for field in ("domain", "aor", "contact", "user_agent", "received")
            ),
            shown=lambda contact: {
                "node": contact.machine_id,
                "domain": contact.domain,
                "aor": contact.aor,
                "uri": contact.uri,
                "user_agent": contact.user_agent,
                "received": as_text(contact.sent.received),
                "expires": contact.expires or None,
            },
        )

    def _receive(self, kind: int, received: ReceiveInfo | None, machine_id: int) -> None:
        message = self._message(kind, received, machine_id)
        if message is None or received is None:
            return
        changes: list[Change[Contact]] = []  # a record without contacts changes nothing
        with self._telling:
            if isinstance(message, ContactState):
                changes = self._put(message, machine_id, received)
            elif isinstance(message, ContactDeleted):
                changes = self._delete(message)
            elif isinstance(message, RecordDeleted):
                keys = self._contacts.known_keys((message.domain, message.aor))
                changes = self._contacts.discard(keys)
            self._tell(self._contacts, changes)

    def _put(
        self, state: ContactState, machine_id: int, received: ReceiveInfo
    ) -> list[Change[Contact]]:
        now = self._contacts.clock()
        key = (state.domain, state.aor, state.contact)
        if self._is_stale(key, state.call_id, state.cseq):
            return []
        until = math.inf if state.expires == NEVER else state.expires
        if until <= now:
            self._stats.expired_on_arrival += 1
            what = f"contact {as_text(state.contact)[:60]!r} of {as_text(state.aor)[:60]!r}"
            self._warn_expired(what, until, now, machine_id, received)
            return self._contacts.discard([key], Reason.EXPIRED)
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
        """Return, and count, whether the known contact is newer, by SIP's order: the CSeq."""
        known = self._contacts.get(key, -math.inf)
        stale = known is not None and known.sent.call_id == call_id and cseq < known.sent.cseq
        self._stats.stale += stale
        return stale
