"""Nodes as the flat text fields of a Redis hash, and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from ipaddress import ip_address
from typing import Any

from clusterer.ids import MAX_ID
from clusterer.membership import Node, State
from clusterer.membership.views import ClusterKey
from clusterer.store import keys
from clusterer.store.badvalues import bad, shortened

_NAMES = tuple(item.name for item in fields(Node))
_TEXT = frozenset({"url", "protocol", "host", "description"})

_MAX_COUNT = 2**53
"""Largest number that a score of a sorted set holds exactly."""

_RANGES = {
    "id": (1, MAX_ID),
    "state": (0, 2),
    "port": (0, 65_535),
    "last_attempt": (0, _MAX_COUNT),
    "failed_attempts": (0, MAX_ID),
    "no_tries": (0, MAX_ID),
    "duration": (0, MAX_ID),
    "generation": (0, _MAX_COUNT),
    "epoch": (0, _MAX_COUNT),
    "version": (0, _MAX_COUNT),
}

_ESSENTIAL = frozenset({"state", "host", "port", "generation", "version"})
"""Fields without which a node cannot be used. For another one the default stands in."""


def encode_node(node: Node) -> dict[str, str]:
    """Return the hash of ``node``, without version, generation and epoch: Redis sets those."""
    values = {name: getattr(node, name) for name in _NAMES}
    return {
        name: value if name in _TEXT else str(int(value))
        for name, value in values.items()
        if name not in ("version", "generation", "epoch")
    }


def decode_node(
    key: ClusterKey, machine_id: int, data: Mapping[bytes, bytes], known: Node | None = None
) -> Node | None:
    """Return the node of a hash, None if it cannot be used; a field that cannot be is reported.

    ``known`` is an earlier state of the node, or None: it stands in for what is missing or bad.
    """
    if not data:
        return known
    values, wrong = decoded_fields(key, machine_id, data)
    for name, why in wrong.items():
        bad(keys.node(*key, machine_id), f"field {name}", *why)
    if wrong.keys() & _ESSENTIAL and known is None:
        return None
    if known is not None:
        values = {name: getattr(known, name) for name in wrong} | values
    values.setdefault("id", 0)
    values.setdefault("url", f"{key.protocol}:{values['host']}:{values['port']}")
    return Node(**values)


def decoded_fields(
    key: ClusterKey, machine_id: int, data: Mapping[bytes, bytes]
) -> tuple[dict[str, Any], dict[str, tuple[object, str]]]:
    """Return the fields of a node's hash that can be used, and what is wrong with the others.

    Of these: by name what is there, as messages show it, and what is expected.
    """
    own = {"cluster_id": key.cluster_id, "machine_id": machine_id, "protocol": key.protocol}
    values: dict[str, Any] = dict(own)
    wrong: dict[str, tuple[object, str]] = {}
    for name in _NAMES:
        raw = data.get(name.encode())
        if raw is None and name == "epoch":
            continue  # an earlier release wrote the node
        if raw is None:
            wrong[name] = ("missing", _expected(name, own))
        elif name in own:
            if raw != str(own[name]).encode():
                wrong[name] = (raw, _expected(name, own))
        elif (value := _decoded(name, raw)) is None:
            wrong[name] = (raw, _expected(name, own))
        else:
            values[name] = value
    return values, wrong


def _decoded(name: str, raw: bytes) -> str | int | State | None:
    """Return a field's value, None for one that cannot be used."""
    if name in _TEXT:
        text = raw.decode("utf-8", "replace")
        return text if name != "host" or _is_address(text) else None
    low, high = _RANGES[name]
    if not raw.isdigit() or len(raw) > _LONGEST or not low <= int(raw) <= high:
        return None
    return State(int(raw)) if name == "state" else int(raw)


_LONGEST = 17
"""Digits of the largest number."""


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def _expected(name: str, own: Mapping[str, object]) -> str:
    if name in own:
        return shortened(own[name])
    if name in _TEXT:
        return "an IP address" if name == "host" else "text"
    low, high = _RANGES[name]
    return f"a whole number from {low} to {high}"
