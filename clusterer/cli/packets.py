"""A packet as one line of text."""

from __future__ import annotations

from datetime import datetime

from clusterer.runtime.logs import plain
from clusterer.services.admin.packets import words
from clusterer.services.admin.recording import Record


def as_line(record: Record) -> str:
    """Return time, source node, module, message and fields."""
    packet = record.packet
    at = datetime.fromtimestamp(record.time).strftime("%H:%M:%S.%f")[:-3]  # noqa: DTZ006 - local
    node = "?" if packet.machine_id is None else packet.machine_id
    line = f"{at} node {node} {packet.module} {words(packet)}"
    # Bytes from the network must not steer the terminal.
    return plain(line, instead=".")
