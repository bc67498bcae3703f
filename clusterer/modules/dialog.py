"""Observer of dialog: which calls are up, and how many are in each profile, across the cluster."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from clusterer.ids import SERVER_TIMEOUT
from clusterer.modules.absence import Absences, Watched
from clusterer.modules.call_order import CallKey, EndedCalls, early_key, is_news, key_of
from clusterer.modules.expiring import Bounds, Change, ExpiringTable, Reason
from clusterer.modules.observing import (
    Clock,
    ModuleCallback,
    Observer,
    Received,
    Watchers,
    monotonic,
    wall,
)
from clusterer.payloads import CallState, DialogDeleted, DialogState, ProfileCount, ProfileCounts
from clusterer.payloads.dialog import MODULE
from clusterer.payloads.message import as_bytes, as_text

__all__ = ["Bounds", "Call", "Change", "Dialogs", "ProfileUse", "Reason"]

PROFILE_LIFETIME_S = 10.0
"""A count that was not refreshed for so long counts as 0, as in 2.2."""

UNCONFIRMED_LIFETIME_S = 300.0
"""A call that nobody has answered has no expiry of its own in 2.2; it goes after so long."""

DEFAULT_LIFETIME_S = 43_200
"""Of a call without any expiry: 2.2's default_timeout."""

ProfileKey = tuple[bytes, bytes | None, int]
"""Profile, value and machine_id."""


@dataclass(frozen=True, slots=True)
class Call:
    """A call that is up on some machine of the cluster."""

    sent: DialogState
    """Everything that was sent, as bytes and numbers."""
    machine_id: int
    """The machine that said so last."""

    @property
    def call_id(self) -> str:
        return as_text(self.sent.call_id)

    @property
    def from_tag(self) -> str:
        return as_text(self.sent.from_tag)

    @property
    def to_tag(self) -> str:
        """Empty until somebody was reached."""
        return as_text(self.sent.to_tag)

    @property
    def from_uri(self) -> str:
        return as_text(self.sent.from_uri)

    @property
    def to_uri(self) -> str:
        return as_text(self.sent.to_uri)

    @property
    def started(self) -> int:
        """UNIX seconds."""
        return self.sent.start

    @property
    def is_confirmed(self) -> bool:
        """Whether it was answered."""
        return self.sent.state >= CallState.CONFIRMED_NO_ACK


@dataclass(frozen=True, slots=True)
class ProfileUse:
    """How many calls one machine has in a profile with a value."""

    profile: str
    value: str | None
    """None for a profile without values."""
    machine_id: int
    calls: int


class Dialogs(Observer):
    """Keeps the calls and profile counts that the cluster's machines replicate. Thread-safe.

    Registers twice under ``dialog``. For calls without a timeout: they come only when calls
    change, and a silenced machine's would be lost for good. For profile counts with one: they
    come ten times a second, and those of a machine that is gone must not count on.
    """

    def __init__(
        self,
        clusterer: Watched,
        cluster_id: int,
        *,
        profiles_timeout: float = 10,
        end_calls_after: float = 0,
        bounds: Bounds | None = None,
        clock: Clock = monotonic,
        unix_clock: Clock = wall,
    ) -> None:
        """Make the observer; it receives nothing before `start`.

        ``profiles_timeout``: seconds of silence after which a machine's profile counts are
        invalidated at once, 0: never. ``end_calls_after``: seconds after which the calls of a node
        end that was not up all the time and sent nothing about calls, 0: never. ``bounds``: how
        much is kept, of calls and of counts each.
        ``clock`` ages counts and never goes back; calls' expiry is compared with ``unix_clock``.
        """
        super().__init__(clusterer, cluster_id, clock)
        self._unix_clock = unix_clock
        self._profiles_timeout = profiles_timeout
        self._absences = Absences(clusterer, cluster_id, end_calls_after)
        self._calls: ExpiringTable[CallKey, Call] = ExpiringTable(_call_id, bounds or Bounds())
        self._uses: ExpiringTable[ProfileKey, ProfileUse] = ExpiringTable(
            _profile, bounds or Bounds()
        )
        self._ended = EndedCalls(bounds or Bounds())
        self._call_watchers: Watchers[Call] = Watchers("calls")
        self._use_watchers: Watchers[ProfileUse] = Watchers("profile counts")

    def on_call(self, callback: Callable[[Change[Call]], object]) -> None:
        """Have ``callback`` called with every change of a call, in the thread that received it."""
        self._call_watchers.add(callback)

    def on_profile(self, callback: Callable[[Change[ProfileUse]], object]) -> None:
        """Have ``callback`` called whenever a machine's count in a profile changes."""
        self._use_watchers.add(callback)

    def calls(self, call_id: str | bytes | None = None) -> list[Call]:
        """Return the calls that are up, all or those of a call-id."""
        group = None if call_id is None else as_bytes(call_id)
        return self._calls.values(self._unix_clock(), group)

    def profiles(self) -> dict[tuple[str, str | None], int]:
        """Return the calls per profile and value (None without values), summed over machines."""
        sums: dict[tuple[str, str | None], int] = {}
        for use in self._uses.values(self._clock()):
            key = (use.profile, use.value)
            sums[key] = sums.get(key, 0) + use.calls
        return sums

    def profile_size(self, profile: str, value: str | None = None) -> int:
        """Return the calls in a profile on all machines; without ``value``, with any."""
        uses = self._uses.values(self._clock(), as_bytes(profile))
        return sum(use.calls for use in uses if value is None or use.value == value)

    def expire(self) -> None:
        with self._telling:
            for machine_id in self._absences.gone(self._clock()):
                self._drop(self._calls, self._call_watchers, machine_id, Reason.NOT_UP)
            self._tell(self._calls.expire(self._unix_clock()), self._call_watchers)
            self._tell(self._uses.expire(self._clock()), self._use_watchers)

    def _forget(self, machine_id: int, reason: Reason) -> int:
        calls = self._drop(self._calls, self._call_watchers, machine_id, reason)
        return calls + self._drop(self._uses, self._use_watchers, machine_id, reason)

    def _registrations(self) -> list[tuple[str, str, ModuleCallback, float]]:
        return [
            ("calls", MODULE, self._receive_call, 0),
            ("profiles", MODULE, self._receive_counts, self._profiles_timeout),
        ]

    # -- calls ------------------------------------------------------------------------------------

    def _receive_call(self, kind: int, received: Received | None, machine_id: int) -> None:
        if kind == ProfileCounts.TYPE:
            return
        message = self._message(kind, received, machine_id)
        if message is None or received is None:
            return
        changes: list[Change[Call]] = []
        with self._telling:
            self._absences.heard(machine_id)
            if isinstance(message, DialogState) and message.state != CallState.DELETED:
                changes = self._put(Call(message, machine_id), received)
            elif isinstance(message, DialogState | DialogDeleted):
                changes = self._delete(message)
            self._tell(changes, self._call_watchers)

    def _put(self, call: Call, received: Received) -> list[Change[Call]]:
        now = self._unix_clock()
        key = key_of(call.sent)
        if not self._is_news(call.sent, now):
            self._stats.stale += 1
            return []
        until = _until(call.sent, now)
        if until <= now:
            self._stats.stale += 1
            what = f"call {call.call_id[:60]!r}"
            self._complain_late(what, call.sent.expires, now, call.machine_id, received)
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

    def _receive_counts(self, kind: int, received: Received | None, machine_id: int) -> None:
        if kind == SERVER_TIMEOUT:
            self._stats.timeouts += 1
            self._drop(self._uses, self._use_watchers, machine_id, Reason.SILENT)
        elif kind == ProfileCounts.TYPE:
            message = self._message(kind, received, machine_id)
            if isinstance(message, ProfileCounts):
                now = self._clock()
                with self._telling:
                    for count in message.counts:
                        self._tell(self._count(count, machine_id, now), self._use_watchers)

    def _count(self, count: ProfileCount, machine_id: int, now: float) -> list[Change[ProfileUse]]:
        profile, value, calls = count
        key = (profile, value, machine_id)
        if not calls:
            return self._uses.discard([key])
        text = None if value is None else as_text(value)
        use = ProfileUse(as_text(profile), text, machine_id, calls)
        size = len(profile) + len(value or b"")
        return self._uses.put(key, use, now + PROFILE_LIFETIME_S, size, now)


def _call_id(key: CallKey) -> bytes:
    return key[0]


def _profile(key: ProfileKey) -> bytes:
    return key[0]


def _until(call: DialogState, now: float) -> float:
    if call.expires > now:
        return call.expires
    if not call.expires:
        return now + DEFAULT_LIFETIME_S
    return now if call.state >= CallState.CONFIRMED_NO_ACK else now + UNCONFIRMED_LIFETIME_S
