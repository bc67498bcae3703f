"""What OpenSIPS 2.2's modules say in their packets, as types. No socket, no clock, no Redis.

`decode` makes a message of a packet. The framing underneath is `clusterer.wire`.
"""

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
from clusterer.payloads.registry import MESSAGES, decode
from clusterer.payloads.usrloc import (
    ContactDeleted,
    ContactInserted,
    ContactState,
    ContactUpdated,
    RecordDeleted,
    RecordInserted,
)

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
