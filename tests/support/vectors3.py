"""Frames and streams captured between nodes of OpenSIPS 3.x."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from clusterer.wire import FrameDecoder3, Packet

VECTORS = Path(__file__).parents[1] / "vectors"


def captured() -> list[dict[str, Any]]:
    """Return all captured frames: ``frame`` in hex, ``decoded`` by another program."""
    found: list[dict[str, Any]] = []
    for name in ("opensips-3.6-frames.json", "opensips-3x-frames.json"):
        found += json.loads((VECTORS / name).read_text())
    return found


def streams(run: str) -> list[dict[str, Any]]:
    """Return the TCP streams of one run: ``src``, ``dst``, ``start`` (UNIX time), ``data``."""
    found = json.loads((VECTORS / "opensips-3.6-streams.json").read_text())
    return [stream for stream in found if stream["run"] == run]


def packet_of(frame: str | bytes) -> Packet:
    """Return the packet of one frame, in hex or bytes."""
    data = bytes.fromhex(frame) if isinstance(frame, str) else frame
    (packet,) = FrameDecoder3().feed(data)
    return packet
