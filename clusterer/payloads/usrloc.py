"""Messages of OpenSIPS 2.2's usrloc module: addresses of record and their contacts."""

from __future__ import annotations

from dataclasses import dataclass, field

from clusterer.payloads.message import PACKED_32, PACKED_64, FlatMessage
from clusterer.payloads.notation import SocketAddress, parse_socket

MODULE = "ul"

NEVER = 0
"""Value of `expires` for a contact that never expires."""


@dataclass(frozen=True, slots=True)
class Record(FlatMessage, module=MODULE):
    """An address of record, without contacts; sent as `RecordInserted` or `RecordDeleted`."""

    domain: bytes
    """Name of the table, such as ``location``."""
    aor: bytes


@dataclass(frozen=True, slots=True)
class RecordInserted(Record, type=1, name="ul record inserted"):
    """A node added an address of record; the first contact follows."""


@dataclass(frozen=True, slots=True)
class RecordDeleted(Record, type=2, name="ul record deleted"):
    """A node deleted an address of record with all its contacts."""


@dataclass(frozen=True, slots=True)
class ContactState(FlatMessage, module=MODULE):
    """A contact of an address of record; sent as `ContactInserted` or `ContactUpdated`."""

    domain: bytes
    aor: bytes
    contact: bytes
    """The contact's URI."""
    call_id: bytes
    user_agent: bytes
    path: bytes
    attributes: bytes
    received: bytes
    instance: bytes
    expires: int = field(metadata=PACKED_64)
    """UNIX seconds; 0: never."""
    q: int = field(metadata=PACKED_32)
    """-1: unset, else 1,000 times the value; see `q_value`."""
    socket: bytes
    cseq: int
    flags: int
    contact_flags: int
    methods: int
    """Bit mask; -1: all."""
    last_modified: int = field(metadata=PACKED_64)
    """UNIX seconds."""

    @property
    def q_value(self) -> float | None:
        """The preference of the contact, None if unset."""
        return None if self.q == -1 else self.q / 1_000

    def parsed_socket(self) -> SocketAddress | None:
        """Return the socket that received the registration. Raises `WireError` if it is invalid."""
        return self._parsed(parse_socket, "socket")


@dataclass(frozen=True, slots=True)
class ContactInserted(ContactState, type=3, name="ul contact inserted"):
    """A phone registered."""


@dataclass(frozen=True, slots=True)
class ContactUpdated(ContactState, type=4, name="ul contact updated"):
    """A phone registered again."""


@dataclass(frozen=True, slots=True)
class ContactDeleted(FlatMessage, module=MODULE, type=5, name="ul contact deleted"):
    """The registration of a phone ended."""

    domain: bytes
    aor: bytes
    contact: bytes
    call_id: bytes
    cseq: int
