"""Frames captured between two real OpenSIPS 2.2.8 instances, and ways to make hostile ones."""

from __future__ import annotations

import functools
import json
import struct
from pathlib import Path
from typing import Any, NamedTuple

_FOLDER = Path(__file__).parent.parent / "vectors"


class Captured(NamedTuple):
    """One captured frame with what the capture knew about it."""

    source: str
    module: str
    type: int
    frame: bytes


def _load(name: str) -> Any:
    return json.loads((_FOLDER / name).read_text(encoding="utf-8"))


@functools.cache
def captured_frames() -> tuple[Captured, ...]:
    """Return every different frame of the capture."""
    return tuple(
        Captured(item["src"], item["module"], item["type"], bytes.fromhex(item["frame"]))
        for item in _load("opensips-2.2.8-frames.json")["frames"]
    )


@functools.cache
def captured_stream() -> tuple[bytes, int]:
    """Return one connection's bytes and how many frames they hold."""
    data = _load("opensips-2.2.8-stream.json")
    return bytes.fromhex(data["stream"]), data["count"]


def raw_frame(
    rest: bytes = b"",
    *,
    length: int | None = None,
    name_length: int | None = None,
    name: bytes = b"mod",
    kind: int = 7,
    version: int = 1,
    marker: bytes = b"P4CK",
    junk: bytes = b"\0\0\0\0",
) -> bytes:
    """Return a frame of module ``mod`` written by hand, with lengths that may lie."""
    body = struct.pack("<i", len(name) if name_length is None else name_length)
    body += name + struct.pack("<i", kind) + rest
    total = 12 + len(body) if length is None else length
    return (
        marker + struct.pack("<H", total) + junk[:2] + struct.pack("<h", version) + junk[2:] + body
    )
