"""Messages of OpenSIPS 2.2's dialog module: calls, and the number of calls per profile."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple, Self

from clusterer.errors import WireError
from clusterer.payloads.message import (
    POP_STR,
    FlatMessage,
    Message,
    builder_of,
    pop_field,
    pop_items,
    printable,
    text_of,
)
from clusterer.payloads.notation import (
    Profile,
    SocketAddress,
    parse_pairs,
    parse_profiles,
    parse_socket,
)
from clusterer.wire import FieldReader, Packet, PacketBuilder

MODULE = "dialog"


class CallState(IntEnum):
    """Values of `DialogState.state`."""

    UNCONFIRMED = 1
    EARLY = 2
    CONFIRMED_NO_ACK = 3
    CONFIRMED = 4
    DELETED = 5


@dataclass(frozen=True, slots=True)
class DialogState(FlatMessage, module=MODULE):
    """The state of a call; sent as `DialogCreated` or `DialogUpdated`."""

    call_id: bytes
    from_tag: bytes
    to_tag: bytes
    from_uri: bytes
    to_uri: bytes
    dialog_id: int
    start: int
    """UNIX seconds."""
    state: int
    """A `CallState`; unknown values are kept."""
    caller_socket: bytes
    callee_socket: bytes
    """Empty without a socket."""
    caller_cseq: bytes
    callee_cseq: bytes
    caller_route_set: bytes
    callee_route_set: bytes
    caller_contact: bytes
    callee_contact: bytes
    callee_leg_from_uri: bytes
    callee_leg_to_uri: bytes
    variables: bytes
    """``name#value|``; see `parsed_variables`."""
    profiles: bytes
    """``name/b#value|``; see `parsed_profiles`."""
    user_flags: int
    module_flags: int
    flags: int
    expires: int
    """UNIX seconds."""
    caller_generated_cseq: int
    callee_generated_cseq: int

    def parsed_sockets(self) -> tuple[SocketAddress | None, SocketAddress | None]:
        """Return the caller's and the callee's socket, None for an empty field.

        Raises `WireError` for an invalid socket.
        """
        return (
            self._parsed(parse_socket, "caller_socket"),
            self._parsed(parse_socket, "callee_socket"),
        )

    def parsed_profiles(self) -> tuple[Profile, ...]:
        """Return the profiles of the call. Raises `WireError` for an invalid field."""
        return self._parsed(parse_profiles, "profiles")

    def parsed_variables(self) -> tuple[tuple[bytes, bytes], ...]:
        """Return names and values of the call's variables. Raises `WireError` likewise."""
        return self._parsed(parse_pairs, "variables")


@dataclass(frozen=True, slots=True)
class DialogCreated(DialogState, type=1, name="dialog created"):
    """A node created a call."""


@dataclass(frozen=True, slots=True)
class DialogUpdated(DialogState, type=2, name="dialog updated"):
    """A call changed. May be the first message about a call, if the receiver missed others."""


@dataclass(frozen=True, slots=True)
class DialogDeleted(FlatMessage, module=MODULE, type=3, name="dialog deleted"):
    """A call ended."""

    call_id: bytes
    from_tag: bytes
    to_tag: bytes
    """Empty if the call ended before it had one."""


class ProfileCount(NamedTuple):
    """How many of the sender's calls are in a profile with a value."""

    profile: bytes
    value: bytes | None
    """None for a profile without values."""
    calls: int

    def text(self, field: str) -> str:
        """Return a bytes field as text; bytes that are not UTF-8 by surrogateescape."""
        return text_of(self, field, ProfileCounts.NAME)


@dataclass(frozen=True, slots=True)
class ProfileCounts(Message, module=MODULE, type=4, name="dialog profile counts"):
    """How many of the sender's calls are in each profile. Sent regularly, as a heartbeat."""

    counts: tuple[ProfileCount, ...] = ()

    @classmethod
    def decode(cls, packet: Packet) -> Self:
        if not packet.payload:
            return cls()  # a heartbeat: the most frequent packet
        return cls(pop_counts(cls.NAME, packet.fields()))

    def encode(self, machine_id: int) -> Packet:
        builder = builder_of(self, machine_id)
        push_counts(builder, self.counts)
        return builder.build()

    def shown(self) -> dict[str, object]:
        return shown_counts(self.counts)


def pop_counts(where: str, reader: FieldReader) -> tuple[ProfileCount, ...]:
    """Return the counts until nothing is left. Raises `WireError`, naming ``where``."""
    items = pop_items(where, "profile", "profile", reader, _pop_count)
    return tuple([ProfileCount(profile, *rest) for profile, rest in items])


def push_counts(builder: PacketBuilder, counts: Iterable[ProfileCount]) -> None:
    """Append ``counts``."""
    for profile, value, calls in counts:
        builder.push_str(profile).push_int(int(value is not None))
        if value is not None:
            builder.push_str(value)
        builder.push_int(calls)


def shown_counts(counts: Iterable[ProfileCount]) -> dict[str, object]:
    """Return ``counts`` for screens and JSON."""
    return {
        "counts": [
            {
                "profile": printable(profile),
                "value": None if value is None else printable(value),
                "calls": calls,
            }
            for profile, value, calls in counts
        ]
    }


def _pop_count(reader: FieldReader) -> tuple[bytes | None, int]:
    has_value = pop_field("has value", FieldReader.pop_int, reader)
    if has_value not in {0, 1}:
        raise WireError(f"field 'has value' must be 0 or 1, not {has_value}")
    value = pop_field("value", POP_STR, reader) if has_value else None
    calls = pop_field("count", FieldReader.pop_int, reader)
    if calls < 0:
        raise WireError(f"field 'count' must be 0 or more, not {calls}")
    return value, calls
