"""Membership and replication for groups of SIP servers, as OpenSIPS 2.2 does it."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from clusterer.api import Clusterer
    from clusterer.errors import (
        BufferFull,
        ClustererError,
        DatabaseUnavailable,
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
    from clusterer.settings import Settings
    from clusterer.settings.sources import load_settings
    from clusterer.wire import Packet

__all__ = [
    "PROTO_BIN",
    "SERVER_TEMP_DISABLED",
    "SERVER_TIMEOUT",
    "BufferFull",
    "Clusterer",
    "ClustererError",
    "DatabaseUnavailable",
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

_ELSEWHERE = {
    "Clusterer": "api",
    "Node": "membership",
    "PROTO_BIN": "ids",
    "Packet": "wire",
    "ReceiveInfo": "listener",
    "SERVER_TEMP_DISABLED": "ids",
    "SERVER_TIMEOUT": "ids",
    "Settings": "settings",
    "in_thread": "listener",
    "load_settings": "settings.sources",
}
"""Name → module; all others are in `errors`."""

if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        """Import what is asked for. A command must be able to catch Ctrl-C before all of it,
        0.2 s of work, is loaded: the package comes before any code of the command runs.
        """
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        found = getattr(
            importlib.import_module(f"{__name__}.{_ELSEWHERE.get(name, 'errors')}"), name
        )
        globals()[name] = found
        return found
