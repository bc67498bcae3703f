"""What the connections of one listener share: its parts, and one receive buffer."""

from __future__ import annotations

from typing import Generic

from clusterer.listener.admission import Admission, C
from clusterer.listener.capture import Capture
from clusterer.listener.dispatch import Dispatcher
from clusterer.settings import Settings
from clusterer.wire import EitherDecoder, FrameDecoder

BUFFER_SIZE = 65_536
"""Bytes that one connection may deliver before the next connection has its turn."""

UNKNOWN_BUFFER_SIZE = 4096
"""The same for an address without a node in the table: many such addresses that flood the listener
together delay a node by their turns."""


class Shared(Generic[C]):
    """The parts that all connections of a listener share.

    Each connection empties the receive buffer before the event loop serves the next connection.
    """

    def __init__(
        self,
        dispatcher: Dispatcher,
        capture: Capture,
        admission: Admission[C],
        settings: Settings,
    ) -> None:
        self.dispatcher = dispatcher
        self.capture = capture
        self.admission = admission
        self.settings = settings
        self.buffer = bytearray(BUFFER_SIZE)
        self.view = memoryview(self.buffer)
        self.decoder = EitherDecoder if settings.dialect3 else FrameDecoder
        self.unknown_view = self.view[:UNKNOWN_BUFFER_SIZE]
