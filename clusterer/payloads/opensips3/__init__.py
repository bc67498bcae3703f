"""Payloads of the modules of OpenSIPS 3.2 to 4.0 as types. Source: docs/wire3.md.

The classes have the names of those for 2.2 where both have the message.
"""

from collections.abc import Mapping
from types import MappingProxyType

from clusterer.payloads.opensips3.cachedb import CacheRemoved, CacheSet
from clusterer.payloads.opensips3.chunks import Chunk
from clusterer.payloads.opensips3.destinations import (
    BalancedStatus,
    CarrierStatus,
    DispatcherState,
    DispatcherStatus,
    GatewayStatus,
)
from clusterer.payloads.opensips3.dialog import (
    DialogCreated,
    DialogCseq,
    DialogDeleted,
    DialogState,
    DialogUpdated,
    DialogValue,
    ProfileCounts,
)
from clusterer.payloads.opensips3.extra import (
    Generic,
    MiCommand,
    RemoveNode,
    Sync,
    SyncEnd,
    SyncRequest,
    TagActive,
)
from clusterer.payloads.opensips3.message import Message3
from clusterer.payloads.opensips3.notation import TaggedSocket, Variable
from clusterer.payloads.opensips3.ratelimit import (
    BridgedPipeCounters,
    PipeCounters,
    PipeRecord,
    RelayedPipeCounters,
)
from clusterer.payloads.opensips3.usrloc import (
    ContactDeleted,
    ContactId,
    ContactInserted,
    ContactState,
    ContactUpdated,
    Match,
    RecordDeleted,
    RecordInserted,
)

__all__ = [
    "MESSAGES",
    "BalancedStatus",
    "BridgedPipeCounters",
    "CacheRemoved",
    "CacheSet",
    "CarrierStatus",
    "Chunk",
    "ContactDeleted",
    "ContactId",
    "ContactInserted",
    "ContactState",
    "ContactUpdated",
    "DialogCreated",
    "DialogCseq",
    "DialogDeleted",
    "DialogState",
    "DialogUpdated",
    "DialogValue",
    "DispatcherState",
    "DispatcherStatus",
    "GatewayStatus",
    "Generic",
    "Match",
    "Message3",
    "MiCommand",
    "PipeCounters",
    "PipeRecord",
    "ProfileCounts",
    "RecordDeleted",
    "RecordInserted",
    "RelayedPipeCounters",
    "RemoveNode",
    "Sync",
    "SyncEnd",
    "SyncRequest",
    "TagActive",
    "TaggedSocket",
    "Variable",
]

_CLASSES: tuple[type[Message3], ...] = (
    PipeCounters,
    BridgedPipeCounters,
    RelayedPipeCounters,
    DialogCreated,
    DialogUpdated,
    DialogDeleted,
    DialogCseq,
    DialogValue,
    ProfileCounts,
    RecordInserted,
    RecordDeleted,
    ContactInserted,
    ContactUpdated,
    ContactDeleted,
    CacheSet,
    CacheRemoved,
    DispatcherStatus,
    GatewayStatus,
    CarrierStatus,
    BalancedStatus,
    RemoveNode,
    Generic,
    MiCommand,
    SyncRequest,
    Sync,
    SyncEnd,
    TagActive,
)

MESSAGES: Mapping[tuple[str, int], type[Message3]] = MappingProxyType(
    {(message.MODULE, message.TYPE): message for message in _CLASSES}
)
"""(capability, packet type) → class of the message."""
