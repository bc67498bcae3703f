"""Received packets: selected by sender, module and type, and decoded as text and for JSON."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import asdict, dataclass
from typing import Any

from clusterer import topology
from clusterer.errors import WireError
from clusterer.payloads import decode
from clusterer.services.admin.recording import Record, address_text
from clusterer.wire import Packet
from clusterer.wire.layout3 import INTERNAL

_SHOWN_BYTES = 200
"""Bytes shown in a line of a payload that has no known type."""


@dataclass(frozen=True, slots=True)
class PacketFilter:
    """Selects packets. An empty collection selects all."""

    modules: Collection[str] = ()
    nodes: Collection[int] = ()
    """machine_ids of senders."""
    types: Collection[int] = ()

    def __contains__(self, record: Record) -> bool:
        packet = record.packet
        return (
            (not self.modules or packet.module in self.modules)
            and (not self.nodes or packet.machine_id in self.nodes)
            and (not self.types or packet.type in self.types)
        )


def decoded(packet: Packet) -> tuple[str | None, dict[str, object] | None, str | None]:
    """Return the message's name and fields, or the error of the decoder; all None if unknown."""
    try:
        if packet.module == INTERNAL and packet.trailer is not None:
            update = topology.decode(packet)
            return (None, None, None) if update is None else (update.NAME, _fields(update), None)
        message = decode(packet)
    except WireError as error:
        return None, None, str(error)
    if message is None:
        return None, None, None
    return message.NAME.removeprefix(packet.module).strip(), message.shown(), None


def _fields(update: topology.Message) -> dict[str, object]:
    """Return the fields of a message of `INTERNAL` for JSON."""
    found = asdict(update)  # type: ignore[call-overload]  # each message is a dataclass
    return {name: _plain(value) for name, value in found.items()}


def _plain(value: object) -> object:
    if isinstance(value, str):
        return value.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    if isinstance(value, dict):  # `NodeDescription.enabled` is not on the wire
        return {name: _plain(each) for name, each in value.items() if name != "enabled"}
    return [_plain(each) for each in value] if isinstance(value, tuple) else value


def as_json(record: Record) -> dict[str, Any]:
    """Return the packet's fields for JSON."""
    packet = record.packet
    message, fields, error = decoded(packet)
    cluster_id, destination = packet.trailer[:2] if packet.trailer is not None else (None, None)
    return {
        "time": record.time,
        "receiver": record.receiver,
        "node": packet.machine_id,
        "source": address_text(record.source),
        "cluster": cluster_id,
        "destination": destination,
        "module": packet.module.encode("utf-8", "surrogateescape").decode("utf-8", "replace"),
        "type": packet.type,
        "version": packet.version,
        "message": message,
        "fields": fields,
        "error": error,
        "payload": packet.payload.hex(),
    }


def words(packet: Packet) -> str:
    """Return the message's name and fields, or the type and the payload, as one line.

    The line may have any characters: its parts come from the network.
    """
    message, fields, error = decoded(packet)
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
