"""Links of an OpenSIPS 3.x cluster as one of its nodes sees them. No socket, no clock, no Redis.

`Topology` says what to send when a packet arrives, when time passes and when a send fails. The
messages are those of the capability `clusterer-internal`, see docs/wire3.md.
"""

from clusterer.topology.link import Link, LinkState
from clusterer.topology.messages import (
    MESSAGES,
    CapabilityUpdate,
    DescriptionUpdate,
    FullTopology,
    LinkUpdate,
    Message,
    NodeEntry,
    Ping,
    Pong,
    UnknownId,
    decode,
)
from clusterer.topology.nodes import NodeDescription
from clusterer.topology.topology import Send, Topology

__all__ = [
    "MESSAGES",
    "CapabilityUpdate",
    "DescriptionUpdate",
    "FullTopology",
    "Link",
    "LinkState",
    "LinkUpdate",
    "Message",
    "NodeDescription",
    "NodeEntry",
    "Ping",
    "Pong",
    "Send",
    "Topology",
    "UnknownId",
    "decode",
]
