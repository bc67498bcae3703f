"""Packets as text and as JSON: one line each."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

from clusterer.errors import WireError
from clusterer.payloads import decode
from clusterer.runtime.logs import plain
from clusterer.services.admin.recording import Record
from clusterer.wire import Packet

_SHOWN_BYTES = 200
"""Bytes shown in a line of a payload that has no known type."""


def as_line(record: Record) -> str:
    """Return time, source node, module, message and fields."""
    packet = record.packet
    at = datetime.fromtimestamp(record.time).strftime("%H:%M:%S.%f")[:-3]  # noqa: DTZ006 - local
    node = "?" if packet.machine_id is None else packet.machine_id
    line = f"{at} node {node} {packet.module} {_words(packet)}"
    # Bytes from the network must not steer the terminal.
    return plain(line, instead=".")


def as_json(record: Record) -> dict[str, Any]:
    """Return the packet's fields for JSON."""
    packet = record.packet
    host, port = record.source
    message, fields, error = _decoded(packet)
    return {
        "time": record.time,
        "receiver": record.receiver,
        "node": packet.machine_id,
        "source": f"[{host}]:{port}" if ":" in host else f"{host}:{port}",
        "module": packet.module.encode("utf-8", "surrogateescape").decode("utf-8", "replace"),
        "type": packet.type,
        "version": packet.version,
        "message": message,
        "fields": fields,
        "error": error,
        "payload": packet.payload.hex(),
    }


def _decoded(packet: Packet) -> tuple[str | None, dict[str, object] | None, str | None]:
    """Return the message's name and fields, or the error of the decoder."""
    try:
        message = decode(packet)
    except WireError as error:
        return None, None, str(error)
    if message is None:
        return None, None, None
    return message.NAME.removeprefix(packet.module).strip(), message.shown(), None


def _words(packet: Packet) -> str:
    message, fields, error = _decoded(packet)
    if fields is not None:
        return " ".join([str(message), *(f"{k}={_value(v)}" for k, v in fields.items())])
    shown = packet.payload[:_SHOWN_BYTES].hex()
    more = len(packet.payload) - _SHOWN_BYTES
    rest = f" and {more} bytes more" if more > 0 else ""
    why = f" ({error})" if error else ""
    return f"type {packet.type}{why} payload={shown}{rest}"


def _value(value: object) -> str:
    if isinstance(value, str) and value and not set(value) & set(' "'):
        return value
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
