"""Messages of the usrloc module of OpenSIPS 3.x: addresses of record and their contacts."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, NamedTuple

from clusterer.errors import InvalidArgument, WireError
from clusterer.payloads.notation import SocketAddress
from clusterer.payloads.opensips3.kinds import (
    INT,
    NUMBER_32,
    NUMBER_64,
    STR,
    Kind3,
    pop_strings,
    push_strings,
    required,
    shown,
    versions,
)
from clusterer.payloads.opensips3.message import FlatMessage3
from clusterer.payloads.opensips3.notation import TaggedSocket, parse_any_socket
from clusterer.wire import FieldReader, PacketBuilder

MODULE = "usrloc-contact-repl"

VERSIONS = (2, 3, 4, 5)
"""3.0 sends 2, 3.1 to 3.5 send 3, and 3.6 and 4.0 send 5."""

BY_PARAMETERS = 2
"""`Match.mode` with a list of parameters."""


class Match(NamedTuple):
    """How the receiver finds the contact that a message is about."""

    mode: int
    """-1 as the receiver is set, 0 by contact, 1 by contact and call_id, 2 by parameters."""
    parameters: tuple[bytes, ...] = ()
    """Names of parameters of the contact's URI; only in mode 2."""


def _pop_match(reader: FieldReader) -> Match | None:
    mode = reader.pop_int()
    if mode is None:
        return None
    if not -1 <= mode <= BY_PARAMETERS:
        raise WireError(f"has the unknown mode {mode}")
    return Match(mode, required(pop_strings(reader)) if mode == BY_PARAMETERS else ())


def _push_match(builder: PacketBuilder, match: Any) -> None:
    if not isinstance(match, Match) or (match.parameters and match.mode != BY_PARAMETERS):
        raise InvalidArgument(f"must be a Match with parameters only in mode 2, not {match!r:.60}")
    builder.push_int(match.mode)
    if match.mode == BY_PARAMETERS:
        push_strings(builder, match.parameters)


def _show_match(match: Match) -> object:
    names = {"parameters": shown(match.parameters)} if match.mode == BY_PARAMETERS else {}
    return {"mode": match.mode, **names}


_MATCH = versions((3, Kind3(_pop_match, _push_match, _show_match)))


class ContactId(NamedTuple):
    """The parts of a contact id."""

    aor_hash: int
    """16 bits."""
    aor_label: int
    """32 bits."""
    contact_label: int
    """14 bits."""

    @classmethod
    def of(cls, number: int) -> ContactId:
        """Return the parts of ``number``."""
        return cls(number >> 46 & 0xFFFF, number >> 14 & 0xFFFF_FFFF, number & 0x3FFF)


@dataclass(frozen=True, slots=True)
class UsrlocMessage(FlatMessage3, module=MODULE, versions=VERSIONS):
    """A message about one address of record."""

    version: int = field(default=5, kw_only=True)


@dataclass(frozen=True, slots=True)
class RecordInserted(UsrlocMessage, type=1, name="ul record inserted"):
    """A node added an address of record; the first contact follows."""

    domain: bytes
    """Name of the table, such as ``location``."""
    aor: bytes
    label: int
    next_contact_label: int
    kv_store: bytes | None = field(metadata=versions((5, STR)))
    """JSON or empty; needed in version 5, else None."""


@dataclass(frozen=True, slots=True)
class RecordDeleted(UsrlocMessage, type=2, name="ul record deleted"):
    """A node deleted an address of record with all its contacts."""

    domain: bytes
    aor: bytes


_BRANCH_FLAGS = versions((0, INT), (4, STR))


@dataclass(frozen=True, slots=True)
class ContactState(UsrlocMessage):
    """A contact of an address of record; sent as `ContactInserted` or `ContactUpdated`."""

    domain: bytes
    aor: bytes
    contact: bytes
    """The contact's URI."""
    contact_id: int = field(metadata=NUMBER_64)
    """See `parsed_contact_id`."""
    call_id: bytes
    user_agent: bytes
    path: bytes
    attributes: bytes
    received: bytes
    instance: bytes
    expires: int = field(metadata=NUMBER_64)
    """UNIX seconds; 0: never."""
    q: int = field(metadata=NUMBER_32)
    """-1: unset, else 1,000 times the value; see `q_value`."""
    socket: bytes
    cseq: int
    flags: int
    """1 only in memory, 2 behind a further hop, 4 reached by push notification."""
    branch_flags: bytes | int = field(metadata=_BRANCH_FLAGS)
    """Names with blanks between them; in versions 2 and 3 a bit mask."""
    methods: int
    """Bit mask; -1: all."""
    last_modified: int = field(metadata=NUMBER_64)
    """UNIX seconds."""
    kv_store: bytes
    """JSON or empty."""
    match: Match | None = field(metadata=_MATCH)
    """None in version 2, else needed."""

    @property
    def q_value(self) -> float | None:
        """The preference of the contact, None if unset."""
        return None if self.q == -1 else self.q / 1_000

    @property
    def parsed_contact_id(self) -> ContactId:
        """The parts of `contact_id`."""
        return ContactId.of(self.contact_id)

    def parsed_socket(self) -> SocketAddress | TaggedSocket | None:
        """Return the socket that received the registration. Raises `WireError` if it is invalid."""
        return self._parsed(parse_any_socket, "socket")


@dataclass(frozen=True, slots=True)
class ContactInserted(ContactState, type=3, name="ul contact inserted"):
    """A phone registered."""


@dataclass(frozen=True, slots=True)
class ContactUpdated(ContactState, type=4, name="ul contact updated"):
    """A phone registered again."""

    AFTER = MappingProxyType({"contact_id": "kv_store"})


@dataclass(frozen=True, slots=True)
class ContactDeleted(UsrlocMessage, type=5, name="ul contact deleted"):
    """The registration of a phone ended."""

    domain: bytes
    aor: bytes
    contact: bytes
    call_id: bytes
    cseq: int
    match: Match | None = field(metadata=_MATCH)
    """None in version 2, else needed."""
