"""What a listener has seen, as plain numbers."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from clusterer.wire import PacketBuilder

CLOSED_FOR = (
    "max_connections",
    "max_connections_per_address",
    "no frame",
    "unfinished frame",
    "idle",
    "displaced",
)
"""Why a listener refuses or closes connections; displaced: its place was needed."""


class Tally:
    """Packets of one module and machine_id, and their bytes where those are wanted."""

    __slots__ = ("_head", "packets", "payloads")

    def __init__(self, module: str = "") -> None:
        self._head = PacketBuilder(module, 0, 1).size
        self.packets = 0
        self.payloads = 0
        """Bytes behind the machine_id."""

    def add(self, packets: int, payloads: int) -> None:
        """Count packets, and the bytes of their payloads together."""
        self.packets += packets
        self.payloads += payloads

    @property
    def bytes(self) -> int:
        """Bytes of the frames."""
        return self.packets * self._head + self.payloads


@dataclass(slots=True)
class Counters:
    """Totals since the listener was made; written by its thread, read by anybody."""

    packets: int = 0
    """Complete packets received, dropped ones included."""
    bytes: int = 0
    weigh: bool = False
    """Whether bytes are counted by module and machine_id too: it costs a twentieth."""
    connections_accepted: int = 0
    connections_open: int = 0
    connections_refused: int = 0
    """Over ``max_connections`` or ``max_connections_per_address``."""
    connections_expired: int = 0
    """Closed by us: idle, no frame at all, or a frame that did not end."""
    closed: Counter[str] = field(default_factory=Counter)
    """Connections refused or closed by us, by reason: `CLOSED_FOR`."""
    wire_errors: int = 0
    """Connections closed because of bytes that are not BIN."""
    skipped_words: int = 0
    """Zero words between frames: OpenSIPS 2.2's trailing empty strings."""
    callback_errors: int = 0
    timeouts: int = 0
    """Timeout notices passed on to callbacks."""
    received: dict[tuple[str, int], Tally] = field(default_factory=dict)
    """Packets by module and machine_id; only of registered modules and nodes of the table."""
    others: Tally = field(default_factory=Tally)
    """All other packets: strangers could invent any number of modules and machine_ids."""
    drops: Counter[str] = field(default_factory=Counter)
    """Packets not passed on, by reason: ``no machine_id``, ``negative type``, ``unknown module``;
    ``unknown source`` and ``silenced``, counted once if several callbacks of the module would
    have got the packet; for each callback that raised a `WireError` ``bad payload``, and for each
    that waits ``callback queue full``, ``stopped``."""
    mirrored: int = 0
    """Packets kept for those who tail."""
    mirror_losses: int = 0
    """Packets that those who tail did not get, because there were too many."""
