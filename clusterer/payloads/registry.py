"""Which message a packet is."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from clusterer.payloads.dialog import DialogCreated, DialogDeleted, DialogUpdated, ProfileCounts
from clusterer.payloads.message import VERSION, Message
from clusterer.payloads.ratelimit import PipeCounters
from clusterer.payloads.usrloc import (
    ContactDeleted,
    ContactInserted,
    ContactUpdated,
    RecordDeleted,
    RecordInserted,
)
from clusterer.wire import Packet

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
"""(module, packet type) → the class of its message."""


def decode(packet: Packet) -> Message | None:
    """Return the message in ``packet``; None for a module, type or version unknown here.

    Raises `WireError`, naming message and field, if its fields are not what they must be.
    """
    message = MESSAGES.get((packet.module, packet.type))
    if message is None or packet.version != VERSION:
        return None
    return message.decode(packet)
