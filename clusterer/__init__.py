"""Membership and replication for groups of SIP servers, as OpenSIPS 2.2 does it."""

from clusterer.api import Clusterer
from clusterer.errors import (
    ClustererError,
    FrameTooLarge,
    InvalidArgument,
    PeerUnreachable,
    ProvisioningError,
    SettingsError,
    StateUnavailable,
    UnknownCluster,
    UnknownNode,
    WireError,
)
from clusterer.ids import PROTO_BIN, SERVER_TEMP_DISABLED, SERVER_TIMEOUT
from clusterer.listener import ReceiveInfo, in_thread
from clusterer.membership import Node
from clusterer.settings import Settings, load_settings
from clusterer.wire import Packet

__all__ = [
    "PROTO_BIN",
    "SERVER_TEMP_DISABLED",
    "SERVER_TIMEOUT",
    "Clusterer",
    "ClustererError",
    "FrameTooLarge",
    "InvalidArgument",
    "Node",
    "Packet",
    "PeerUnreachable",
    "ProvisioningError",
    "ReceiveInfo",
    "Settings",
    "SettingsError",
    "StateUnavailable",
    "UnknownCluster",
    "UnknownNode",
    "WireError",
    "in_thread",
    "load_settings",
]
