"""Messages of the dialog module of OpenSIPS 3.x: calls, and how many a profile has."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Self

from clusterer.errors import InvalidArgument, WireError
from clusterer.payloads.dialog import ProfileCount, pop_counts, push_counts, shown_counts
from clusterer.payloads.notation import Profile, SocketAddress
from clusterer.payloads.opensips3.kinds import INT, Kind3, always, required, versions
from clusterer.payloads.opensips3.message import FlatMessage3, Message3
from clusterer.payloads.opensips3.notation import (
    NUMBER,
    TEXT,
    TaggedSocket,
    Variable,
    parse_any_socket,
    parse_profiles,
    parse_variables,
)
from clusterer.wire import FieldReader, Packet, PacketBuilder, PacketBuilder3

MODULE = "dialog-dlg-repl"
PROFILES_MODULE = "dialog-prof-repl"

VERSIONS = (3, 4, 5)
"""3.1 to 4.0 send 4, 3.6 reads 3 too; the source after 4.0 has 5."""

Socket = SocketAddress | TaggedSocket | None


@dataclass(frozen=True, slots=True)
class DialogMessage(FlatMessage3, module=MODULE, versions=VERSIONS):
    """A message about one call."""

    version: int = field(default=4, kw_only=True)


@dataclass(frozen=True, slots=True)
class DialogState(DialogMessage):
    """The state of a call; sent as `DialogCreated` or `DialogUpdated`."""

    call_id: bytes
    from_tag: bytes
    to_tag: bytes
    from_uri: bytes
    to_uri: bytes
    dialog_id: int
    """With the call_id the key of the call in versions 4 and 5."""
    start: int
    """UNIX seconds."""
    state: int
    """A `CallState`; unknown values are kept. Only confirmed calls are sent."""
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
    caller_sdp_in: bytes
    caller_sdp_out: bytes
    callee_sdp_in: bytes
    callee_sdp_out: bytes
    caller_advertised_contact: bytes
    callee_advertised_contact: bytes
    variables: bytes
    """``name#value|``, from 3.4.0 on ``name#type#value|``; see `parsed_variables`."""
    profiles: bytes
    """``name/b#value|``, from 3.4.0 on ``name/b#1#value|``; see `parsed_profiles`."""
    user_flags: int
    module_flags: int
    flags: int
    expires: int
    """UNIX seconds."""
    caller_generated_cseq: int
    callee_generated_cseq: int
    on_answer_route: bytes
    on_timeout_route: bytes
    on_hangup_route: bytes
    options_ping_interval: int | None = field(default=None, metadata=versions((5, INT)))
    """Seconds; only in version 5."""
    reinvite_ping_interval: int | None = field(default=None, metadata=versions((5, INT)))
    """Seconds; only in version 5."""

    def parsed_sockets(self) -> tuple[Socket, Socket]:
        """Return the caller's and the callee's socket, None for an empty field.

        Raises `WireError` for an invalid socket.
        """
        return (
            self._parsed(parse_any_socket, "caller_socket"),
            self._parsed(parse_any_socket, "callee_socket"),
        )

    def parsed_profiles(self) -> tuple[Profile, ...]:
        """Return the profiles of the call. Raises `WireError` for an invalid field."""
        return self._parsed(parse_profiles, "profiles")

    def parsed_variables(self) -> tuple[Variable, ...]:
        """Return names and values of the call's variables. Raises `WireError` likewise."""
        return self._parsed(parse_variables, "variables")


@dataclass(frozen=True, slots=True)
class DialogCreated(DialogState, type=1, name="dialog created"):
    """A node created a call. Chunks of a sync have the same fields."""


@dataclass(frozen=True, slots=True)
class DialogUpdated(DialogState, type=2, name="dialog updated"):
    """A call changed. May be the first message about a call, if the receiver missed others."""


@dataclass(frozen=True, slots=True)
class DialogDeleted(DialogMessage, type=3, name="dialog deleted"):
    """A call ended. A `DialogValue` of the call may still follow."""

    call_id: bytes
    from_tag: bytes
    to_tag: bytes
    dialog_id: int | None = field(metadata=versions((4, INT)))
    """None in version 3, else needed."""


@dataclass(frozen=True, slots=True)
class DialogCseq(DialogMessage, type=4, name="dialog cseq"):
    """The sequence number of a leg changed: each ping inside a call sends one."""

    call_id: bytes
    other_tag: bytes
    """Tag of the other leg."""
    leg_tag: bytes
    dialog_id: int
    cseq: int


def _pop_value(reader: FieldReader) -> bytes | int | None:
    kind = required(reader.pop_int())
    if kind not in {0, TEXT, NUMBER}:
        raise WireError(f"has the unknown type {kind}")
    if kind == 0:
        return None
    value: bytes | int = required(reader.pop_str() if kind == TEXT else reader.pop_int())
    return value


def _push_value(builder: PacketBuilder, value: Any) -> None:
    if value is None:
        builder.push_int(0)
    elif isinstance(value, int):
        builder.push_int(NUMBER).push_int(value)
    elif isinstance(value, bytes):
        builder.push_int(TEXT).push_str(value)
    else:
        raise InvalidArgument(f"must be bytes, int or None, not {value!r:.60}")


_VALUE = Kind3(_pop_value, _push_value, may_be_none=True)


@dataclass(frozen=True, slots=True)
class DialogValue(DialogMessage, type=5, name="dialog value"):
    """A variable of a call changed (from 3.5 on)."""

    call_id: bytes
    dialog_id: int
    name: bytes
    value: bytes | int | None = field(metadata=always(_VALUE))
    """None: deleted."""


@dataclass(frozen=True, slots=True)
class ProfileCounts(
    Message3, module=PROFILES_MODULE, type=4, name="dialog profile counts", versions=VERSIONS
):
    """How many of the sender's calls are in each profile. Sent regularly, as a heartbeat."""

    counts: tuple[ProfileCount, ...] = ()
    version: int = field(default=4, kw_only=True)

    @classmethod
    def decode(cls, packet: Packet) -> Self:
        return cls(pop_counts(cls.NAME, packet.fields()), version=packet.version)

    def push(self, builder: PacketBuilder3) -> None:
        push_counts(builder, self.counts)

    def shown(self) -> dict[str, object]:
        return shown_counts(self.counts)
