"""Frames captured between real OpenSIPS instances, and ways to make hostile ones."""

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
    """Return every different frame of the capture of 2.2.8."""
    return tuple(
        Captured(item["src"], item["module"], item["type"], bytes.fromhex(item["frame"]))
        for item in _load("opensips-2.2.8-frames.json")["frames"]
    )


@functools.cache
def captured_stream() -> tuple[bytes, int]:
    """Return one connection's bytes and how many frames they hold."""
    data = _load("opensips-2.2.8-stream.json")
    return bytes.fromhex(data["stream"]), data["count"]


class Captured3(NamedTuple):
    """One frame captured between OpenSIPS 3.x nodes with what the capture knew about it."""

    run: str
    source: str
    module: str
    type: int
    version: int
    frame: bytes
    decoded: dict[str, Any]


@functools.cache
def opensips3_frames() -> tuple[Captured3, ...]:
    """Return every different frame of the captures of 3.1.17 to 4.0.1."""
    return tuple(
        Captured3(
            item["run"],
            item["src"],
            item["module"],
            item["type"],
            item["version"],
            bytes.fromhex(item["frame"]),
            item["decoded"],
        )
        for name in ("opensips-3.6-frames.json", "opensips-3x-frames.json")
        for item in _load(name)
    )


class Stream3(NamedTuple):
    """All bytes that one OpenSIPS 3.6.8 node sent to another over one connection."""

    sender: int
    receiver: int
    data: bytes
    frames: int


@functools.cache
def opensips3_streams() -> tuple[Stream3, ...]:
    """Return all captured connections; the nodes are called by the end of their addresses."""
    return tuple(
        Stream3(
            _last_byte(item["src"]),
            _last_byte(item["dst"]),
            bytes.fromhex(item["data"]),
            item["frames"],
        )
        for item in _load("opensips-3.6-streams.json")
    )


def _last_byte(address: str) -> int:
    return int(address.partition(":")[0].rpartition(".")[2])


def raw_frame3(
    body: bytes = b"",
    *,
    length: int | None = None,
    name_length: int | None = None,
    name: bytes = b"mod-repl",
    kind: int = 7,
    version: int = 1,
    marker: bytes = b"P4CK",
) -> bytes:
    """Return a frame of 3.x written by hand, with lengths that may lie."""
    rest = name + struct.pack("<i", kind) + body
    total = 12 + len(rest) if length is None else length
    size = len(name) if name_length is None else name_length
    return marker + struct.pack("<IhH", total, version, size) + rest


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
