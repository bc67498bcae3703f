"""Counters of a listener."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from clusterer.wire import PacketBuilder
from clusterer.wire.frame3 import size_without_fields

CLOSED_FOR = (
    "max_connections",
    "max_connections_per_address",
    "no frame",
    "unfinished frame",
    "idle",
    "displaced",
)
"""Reasons to refuse or close a connection; displaced: a node of the table needed its place."""


class Tally:
    """Number of packets of one module and machine_id, and of their bytes if ``weigh`` is set."""

    __slots__ = ("_head", "packets", "payloads")

    def __init__(self, module: str = "", *, opensips_3: bool = False) -> None:
        head = size_without_fields(module) if opensips_3 else PacketBuilder(module, 0, 1).size
        self._head = head
        self.packets = 0
        self.payloads = 0
        """Bytes of payload."""

    def add(self, packets: int, payloads: int) -> None:
        """Count packets, and their bytes of payload."""
        self.packets += packets
        self.payloads += payloads

    @property
    def bytes(self) -> int:
        """Bytes of the frames."""
        return self.packets * self._head + self.payloads


@dataclass(slots=True)
class Counters:
    """Totals since the listener was made. The listener's thread writes, any thread may read."""

    packets: int = 0
    """Complete packets received, dropped ones included."""
    bytes: int = 0
    weigh: bool = False
    """Whether bytes are counted by module and machine_id too: 5 % more CPU time."""
    connections_accepted: int = 0
    connections_open: int = 0
    connections_refused: int = 0
    """Over ``max_connections`` or ``max_connections_per_address``."""
    connections_expired: int = 0
    """Closed by the listener: idle, without a frame, or with an unfinished frame."""
    closed: Counter[str] = field(default_factory=Counter)
    """Connections refused or closed by the listener, by reason: `CLOSED_FOR`."""
    wire_errors: int = 0
    """Connections closed because of bytes that are not BIN."""
    skipped_words: int = 0
    """Zero words between frames: OpenSIPS 2.2's trailing empty strings."""
    callback_errors: int = 0
    timeouts: int = 0
    """Timeout notices handed to callbacks."""
    received: dict[tuple[str, int], Tally] = field(default_factory=dict)
    """Packets by module and machine_id; only of registered modules and nodes of the table."""
    others: Tally = field(default_factory=Tally)
    """All other packets: unknown senders may invent any number of modules and machine_ids."""
    drops: Counter[str] = field(default_factory=Counter)
    """Dropped packets by reason: ``no machine_id``, ``negative type``, ``unknown module``; ``wrong
    dialect``, ``no trailer``, ``other cluster``, ``disabled node``, ``other destination`` and
    ``from another cluster`` (see `clusterer.listener.dialects`);
    ``unknown source`` and ``silenced`` (the node is muted), counted once per packet; ``bad
    payload``, counted per callback that raised a `WireError`; ``callback queue full`` and
    ``stopped``, counted per callback queue."""
    captured: int = 0
    """Packets copied for `clusterer tail`."""
    capture_losses: int = 0
    """Packets not copied, because too many waited."""
