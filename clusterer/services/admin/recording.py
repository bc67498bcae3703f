"""Recordings of cluster traffic: text, one JSON object a line. See docs/commands/packets.md."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, Self

from clusterer.errors import ClustererError, WireError, file_errors
from clusterer.wire import EitherDecoder, Packet

VERSION = 1
_MARK = "clusterer recording"

MAX_TIME = 1e11
"""Latest UNIX time that a packet may have; a later one cannot be waited for, or printed."""


_NO_RECORD = (ValueError, KeyError, TypeError, AttributeError, RecursionError, WireError)
"""Errors that the parser may raise for a line with any content."""


class Record(NamedTuple):
    """One packet as the instance received it."""

    time: float
    """UNIX seconds of the receiving instance's clock."""
    receiver: int
    """machine_id of the instance that received the packet."""
    source: tuple[str, int]
    """IP address and port of the sender's connection."""
    packet: Packet


def as_text(records: Iterable[Record]) -> Iterator[str]:
    """Yield the lines of a recording of ``records``."""
    yield _line({_MARK: VERSION})
    for record in records:
        yield _line_of(record)


class Recorder:
    """Writes a recording to a new file. Raises `ClustererError` if the file cannot be written."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with file_errors("write", path):
            try:
                self._file = path.open("x", encoding="utf-8")
            except FileExistsError:
                raise ClustererError(f"{path} exists, and recordings are not overwritten") from None
        self._write(_line({_MARK: VERSION}))

    def add(self, record: Record) -> None:
        """Append one packet."""
        self._write(_line_of(record))

    def flush(self) -> None:
        """Write all added packets to the file."""
        with file_errors("write", self._path):
            self._file.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        # An error of the file has been raised already, or `flush` was not called.
        with contextlib.suppress(OSError):
            self._file.close()

    def _write(self, line: str) -> None:
        with file_errors("write", self._path):
            self._file.write(line)


class Recording:
    """Reads a recording of any length, line by line.

    After the last record ``cut`` tells whether the last line is cut off: its packet is left out.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.cut = False

    def __iter__(self) -> Iterator[Record]:
        """Yield the packets. Raises `ClustererError`, with the line, for an invalid record."""
        with (
            file_errors("read", self._path),
            self._path.open(encoding="utf-8", errors="replace") as lines,
        ):
            yield from self._records(lines)

    def _records(self, lines: Iterator[str]) -> Iterator[Record]:
        self._check(next(lines, ""))
        for number, line in enumerate(lines, 2):
            try:
                found = json.loads(line)
                if "frame" in found:  # later versions may write other lines
                    yield _record(found)
            except _NO_RECORD as error:
                if not line.endswith("\n"):
                    self.cut = True
                    return
                raise ClustererError(f"{self._path}, line {number}: no packet: {error}") from error

    def _check(self, first: str) -> None:
        try:
            version = json.loads(first)[_MARK]
        except (ValueError, KeyError, TypeError):
            mark = json.dumps({_MARK: VERSION})
            raise ClustererError(
                f"{self._path} is no recording: its first line is not {mark}"
            ) from None
        if version != VERSION:
            raise ClustererError(
                f"{self._path} is a recording of version {version!r}, this program reads {VERSION}"
            )


def packet_of(frame: bytes) -> Packet:
    """Return the packet of ``frame``; raises `WireError` unless it is exactly one."""
    packets = list(EitherDecoder().feed(frame))
    if len(packets) != 1:
        raise WireError(f"{len(packets)} frames instead of one in {len(frame)} bytes")
    return packets[0]


def _line_of(record: Record) -> str:
    return _line(
        {
            "time": record.time,
            "receiver": record.receiver,
            "source": address_text(record.source),
            "frame": record.packet.encode().hex(),
        }
    )


def _line(found: dict[str, Any]) -> str:
    return json.dumps(found) + "\n"


def _record(found: dict[str, Any]) -> Record:
    host, _, port = found["source"].rpartition(":")
    packet = packet_of(bytes.fromhex(found["frame"]))
    time = float(found["time"])
    if not 0 <= time <= MAX_TIME:
        raise ValueError(f"time {time:g}")
    return Record(time, int(found["receiver"]), (host.strip("[]"), int(port)), packet)


def address_text(source: tuple[str, int]) -> str:
    """Return an IP address and a port as ``host:port``."""
    host, port = source
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
