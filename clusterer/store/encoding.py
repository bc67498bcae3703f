"""Nodes as the flat text fields of a Redis hash, and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields

from clusterer.membership import Node, State

_NAMES = tuple(item.name for item in fields(Node))
_TEXT = frozenset({"url", "protocol", "host", "description"})


def encode_node(node: Node) -> dict[str, str]:
    """Return the hash of ``node``, without version and generation: Redis sets those itself."""
    values = {name: getattr(node, name) for name in _NAMES}
    return {
        name: value if name in _TEXT else str(int(value))
        for name, value in values.items()
        if name not in ("version", "generation")
    }


def decode_node(data: Mapping[bytes, bytes]) -> Node:
    """Return the node of a hash; fields that are no number raise ValueError, as a bug would."""
    values: dict[str, str | int | State] = {}
    for raw_name, raw in data.items():
        name = raw_name.decode()
        if name in _NAMES:
            values[name] = raw.decode("utf-8", "replace") if name in _TEXT else int(raw)
    values["state"] = State(int(values["state"]))
    return Node(**values)  # type: ignore[arg-type]  # names and kinds are those of encode_node


def as_text(value: bytes | str) -> str:
    """Return a name that Redis sent; redis-py's types allow for clients that decode."""
    return value if isinstance(value, str) else value.decode()
