"""Payloads of OpenSIPS' modules as types. No socket, no clock, no Redis.

`decode` returns the message in a packet: a class of this package for 2.2, one of
`clusterer.payloads.opensips3` for 3.x. `clusterer.wire` does the framing.
"""

from collections.abc import Mapping
from types import MappingProxyType

from clusterer.payloads import opensips3
from clusterer.payloads.dialog import (
    CallState,
    DialogCreated,
    DialogDeleted,
    DialogState,
    DialogUpdated,
    ProfileCount,
    ProfileCounts,
)
from clusterer.payloads.message import Message
from clusterer.payloads.notation import Profile, SocketAddress
from clusterer.payloads.ratelimit import PipeCounters, PipeRecord
from clusterer.payloads.usrloc import (
    ContactDeleted,
    ContactInserted,
    ContactState,
    ContactUpdated,
    RecordDeleted,
    RecordInserted,
)
from clusterer.wire import Packet

__all__ = [
    "MESSAGES",
    "CallState",
    "ContactDeleted",
    "ContactInserted",
    "ContactState",
    "ContactUpdated",
    "DialogCreated",
    "DialogDeleted",
    "DialogState",
    "DialogUpdated",
    "Message",
    "PipeCounters",
    "PipeRecord",
    "Profile",
    "ProfileCount",
    "ProfileCounts",
    "RecordDeleted",
    "RecordInserted",
    "SocketAddress",
    "decode",
]

_CLASSES: tuple[type[Message], ...] = (
    PipeCounters,
    DialogCreated,
    DialogUpdated,
    DialogDeleted,
    ProfileCounts,
    RecordInserted,
    RecordDeleted,
    ContactInserted,
    ContactUpdated,
    ContactDeleted,
)

MESSAGES: Mapping[tuple[str, int], type[Message]] = MappingProxyType(
    {(message.MODULE, message.TYPE): message for message in _CLASSES}
)
"""(module, packet type) → class of the message of 2.2."""


def decode(packet: Packet) -> Message | None:
    """Return the message in ``packet``, None for an unknown module, type or version.

    Raises `WireError`, naming message and field, for an invalid field.
    """
    messages = MESSAGES if packet.trailer is None else opensips3.MESSAGES
    message = messages.get((packet.module, packet.type))
    if message is None or packet.version not in message.VERSIONS:
        return None
    return message.decode(packet)
