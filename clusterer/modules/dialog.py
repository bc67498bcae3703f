"""Observer of dialog: the calls of the cluster, and the number of calls in each profile."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from clusterer.ids import SERVER_TIMEOUT
from clusterer.listener import Listing
from clusterer.modules.absence import Absences
from clusterer.modules.base import Clock, Cluster
from clusterer.modules.call_order import CallKey, EndedCalls, early_key, is_news, key_of
from clusterer.modules.expiring import Bounds, Change, Reason
from clusterer.modules.observing import Observer, SentText, WatchedTable
from clusterer.payloads import CallState, DialogDeleted, DialogState, ProfileCount, ProfileCounts
from clusterer.payloads.dialog import MODULE
from clusterer.payloads.message import as_bytes, as_text

if TYPE_CHECKING:
    from clusterer.listener import ReceiveInfo

__all__ = ["Bounds", "Call", "Change", "Dialogs", "ProfileUse", "Reason"]

PROFILE_LIFETIME_S = 10.0
"""A count not refreshed for this time counts as 0, as in 2.2."""

UNCONFIRMED_LIFETIME_S = 300.0
"""An unconfirmed call has no expiry in 2.2; the observer removes it after this time."""

DEFAULT_LIFETIME_S = 43_200
"""For a call without an expiry: 2.2's default_timeout."""

_STATES = {
    CallState.UNCONFIRMED: "unconfirmed",
    CallState.EARLY: "early",
    CallState.CONFIRMED_NO_ACK: "answered, no ACK",
    CallState.CONFIRMED: "answered",
}
"""What other processes see of `DialogState.state`."""

ProfileKey = tuple[bytes, bytes | None, int]
"""Profile, value and machine_id."""


@dataclass(frozen=True, slots=True)
class Call:
    """A call of a node of the cluster."""

    sent: DialogState
    """The message with all its fields, as bytes and numbers."""
    machine_id: int
    """The node that sent the call last."""

    call_id = SentText("call_id")
    from_tag = SentText("from_tag")
    to_tag = SentText("to_tag")
    """Empty until the called party has replied."""
    from_uri = SentText("from_uri")
    to_uri = SentText("to_uri")

    @property
    def started(self) -> int:
        """UNIX seconds."""
        return self.sent.start

    @property
    def is_confirmed(self) -> bool:
        """Whether the call was answered."""
        return self.sent.state >= CallState.CONFIRMED_NO_ACK


@dataclass(frozen=True, slots=True)
class ProfileUse:
    """How many calls one node has in a profile with a value."""

    profile: str
    value: str | None
    """None for a profile without values."""
    machine_id: int
    calls: int


class Dialogs(Observer):
    """Keeps the calls and profile counts that the cluster's nodes replicate. Thread-safe.

    Registers twice under ``dialog``. The callback for calls has no timeout: calls come only when
    they change, and those of a muted node would be lost for good. The callback for profile counts
    has a timeout: counts come ten times a second, and those of a lost node must not stay.
    """

    def __init__(
        self,
        clusterer: Cluster,
        cluster_id: int,
        *,
        profiles_timeout: float = 10,
        end_calls_after: float = 0,
        bounds: Bounds | None = None,
        clock: Clock = time.monotonic,
        unix_clock: Clock = time.time,
    ) -> None:
        """Make the observer; it receives nothing before `start`.

        ``profiles_timeout``: seconds without a packet after which a node's profile counts are
        removed at once, 0: never. ``end_calls_after``: seconds for which a node must be not up and
        send nothing about calls before its calls end, 0: never. ``bounds``: greatest size of the
        tables of calls and of counts, each. ``clock``: monotonic, for counts; ``unix_clock``
        decides when calls expire.
        """
        self._calls: WatchedTable[CallKey, Call] = WatchedTable(
            "calls", lambda key: key[0], bounds, unix_clock
        )
        self._uses: WatchedTable[ProfileKey, ProfileUse] = WatchedTable(
            "profile counts", lambda key: key[0], bounds, clock
        )
        callbacks = [(self._receive_call, 0), (self._receive_counts, profiles_timeout)]
        super().__init__(clusterer, MODULE, cluster_id, callbacks, clock, self._calls, self._uses)
        self._absences = Absences(clusterer, cluster_id, end_calls_after)
        self._ended = EndedCalls(bounds or Bounds())

    def on_call(self, callback: Callable[[Change[Call]], object]) -> None:
        """Call ``callback`` with every change of a call, in the thread that received the packet."""
        self._calls.watch(callback)

    def on_profile(self, callback: Callable[[Change[ProfileUse]], object]) -> None:
        """Call ``callback`` whenever a node's count in a profile changes."""
        self._uses.watch(callback)

    def calls(self, call_id: str | bytes | None = None) -> list[Call]:
        """Return the current calls, all or those of a call-id."""
        group = None if call_id is None else as_bytes(call_id)
        return self._calls.values(self._calls.clock(), group)

    def profiles(self) -> dict[tuple[str, str | None], int]:
        """Return the calls per profile and value (None without values), summed over nodes."""
        sums: Counter[tuple[str, str | None]] = Counter()
        for use in self._uses.values(self._clock()):
            sums[use.profile, use.value] += use.calls
        return dict(sums)

    def profile_size(self, profile: str, value: str | None = None) -> int:
        """Return the calls in a profile on all nodes; without ``value``, with any value."""
        uses = self._uses.values(self._clock(), as_bytes(profile))
        return sum(use.calls for use in uses if value is None or use.value == value)

    def _listings(self) -> Iterable[Listing]:
        yield Listing(
            "calls",
            self._calls.__len__,
            self.calls,
            haystack=lambda call: b"\0".join(
                getattr(call.sent, field)
                for field in ("call_id", "from_uri", "to_uri", "caller_contact", "callee_contact")
            ),
            shown=lambda call: {
                "node": call.machine_id,
                "call_id": call.call_id,
                "from_uri": call.from_uri,
                "to_uri": call.to_uri,
                "state": _STATES.get(call.sent.state, f"state {call.sent.state}"),
                "started": call.started or None,
                "expires": call.sent.expires or None,
            },
        )
        yield Listing(
            "profiles",
            self._uses.__len__,
            lambda: self._uses.values(self._clock()),
            haystack=lambda use: as_bytes(f"{use.profile}\0{use.value or ''}"),
            shown=lambda use: {
                "node": use.machine_id,
                "profile": use.profile,
                "value": use.value,
                "calls": use.calls,
            },
        )

    def expire(self) -> None:
        with self._telling:
            for machine_id in self._absences.gone(self._clock()):
                self._drop(self._calls, machine_id, Reason.NOT_UP)
            super().expire()

    # -- calls ------------------------------------------------------------------------------------

    def _receive_call(self, kind: int, received: ReceiveInfo | None, machine_id: int) -> None:
        if kind == ProfileCounts.TYPE:
            return
        message = self._message(kind, received, machine_id)
        if message is None or received is None:
            return
        changes: list[Change[Call]] = []
        with self._telling:
            self._absences.note_seen(machine_id)
            if isinstance(message, DialogState) and message.state != CallState.DELETED:
                changes = self._put(Call(message, machine_id), received)
            elif isinstance(message, DialogState | DialogDeleted):
                changes = self._delete(message)
            self._tell(self._calls, changes)

    def _put(self, call: Call, received: ReceiveInfo) -> list[Change[Call]]:
        now = self._calls.clock()
        key = key_of(call.sent)
        if not self._is_news(call.sent, now):
            self._stats.stale += 1
            return []
        until = _until(call.sent, now)
        if until <= now:
            self._stats.stale += 1
            what = f"call {call.call_id[:60]!r}"
            self._warn_expired(what, call.sent.expires, now, call.machine_id, received)
            return self._calls.discard([key], Reason.EXPIRED)
        early = self._calls.discard([early_key(key)]) if key[2] else []
        size = len(received.packet.payload)
        changes = self._calls.put(key, call, until, size, now)
        if early and Change(None, call) in changes:
            old = early.pop().old
            changes = [replace(c, old=old) if c.new is call else c for c in changes]
        return early + changes

    def _is_news(self, sent: DialogState, now: float) -> bool:
        key = key_of(sent)
        known = self._calls.get(key, now) or self._calls.get(early_key(key), now)
        if known is not None and not is_news(sent, known.sent):
            return False
        return not self._ended.has(sent, self._clock())

    def _delete(self, message: DialogDeleted | DialogState) -> list[Change[Call]]:
        key = key_of(message)
        changes = self._calls.discard([key]) or self._calls.discard([early_key(key)])
        last = changes[0].value.sent if changes else None
        self._ended.note(message, last, self._clock())
        self._stats.unknown_deletes += not changes
        return changes

    # -- profile counts ---------------------------------------------------------------------------

    def _receive_counts(self, kind: int, received: ReceiveInfo | None, machine_id: int) -> None:
        if kind == SERVER_TIMEOUT:
            self._stats.timeouts += 1
            self._drop(self._uses, machine_id, Reason.SILENT)
        elif kind == ProfileCounts.TYPE:
            message = self._message(kind, received, machine_id)
            if isinstance(message, ProfileCounts):
                now = self._clock()
                with self._telling:
                    for count in message.counts:
                        self._tell(self._uses, self._count(count, machine_id, now))

    def _count(self, count: ProfileCount, machine_id: int, now: float) -> list[Change[ProfileUse]]:
        profile, value, calls = count
        key = (profile, value, machine_id)
        if not calls:
            return self._uses.discard([key])
        text = None if value is None else as_text(value)
        use = ProfileUse(as_text(profile), text, machine_id, calls)
        size = len(profile) + len(value or b"")
        return self._uses.put(key, use, now + PROFILE_LIFETIME_S, size, now)


def _until(call: DialogState, now: float) -> float:
    if call.expires > now:
        return call.expires
    if not call.expires:
        return now + DEFAULT_LIFETIME_S
    return now if call.state >= CallState.CONFIRMED_NO_ACK else now + UNCONFIRMED_LIFETIME_S
