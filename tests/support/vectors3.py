"""Frames and streams captured between nodes of OpenSIPS 3.x."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

from clusterer.wire import FrameDecoder3, Packet
from clusterer.wire.layout3 import CONTROL

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


@functools.cache
def captured_frames3() -> tuple[bytes, ...]:
    """Return the different frames of OpenSIPS 3.6, none of which comes from another cluster."""
    found = json.loads((VECTORS / "opensips-3.6-frames.json").read_text())
    return tuple(dict.fromkeys(bytes.fromhex(item["frame"]) for item in found))


@functools.cache
def module_frames3() -> tuple[bytes, ...]:
    """Return those frames that have a destination and belong to a module."""
    return tuple(each for each in captured_frames3() if packet_of(each).module not in CONTROL)


def sent_to(frame: bytes, destination: int) -> bytes:
    """Return a module's frame with another destination, its last four bytes."""
    return frame[:-4] + destination.to_bytes(4, "little", signed=True)
