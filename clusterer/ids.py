"""Identifiers and protocol constants shared by every layer."""

from __future__ import annotations

from clusterer.errors import InvalidArgument

PROTO_BIN = "bin"
"""The one protocol packets can be sent over and received on."""

SERVER_TEMP_DISABLED = -1
"""Packet type a callback gets instead of a packet that a muted node sent."""

SERVER_TIMEOUT = -2
"""Packet type a callback gets when a node has been silent for longer than its timeout."""

MAX_ID = 2**31 - 1
"""Largest cluster_id or machine_id: both are signed 32-bit integers on the wire."""

MAX_SECONDS = 2**31 - 1
"""Longest time that a caller may name, in seconds: 68 years."""


def require_id(name: str, value: object) -> int:
    """Return ``value`` if it is an integer from 1 to 2**31 - 1, else raise `InvalidArgument`."""
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MAX_ID:
        raise InvalidArgument(f"{name} must be an integer from 1 to {MAX_ID}, not {value!r}")
    return value


def require_seconds(name: str, value: object) -> float:
    """Return ``value`` if it is a number from 0 to `MAX_SECONDS`, else raise `InvalidArgument`."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not 0 <= value <= MAX_SECONDS:  # type: ignore[operator]  # a number
        raise InvalidArgument(f"{name} must be seconds from 0 to {MAX_SECONDS}, not {value!r}")
    return value  # type: ignore[return-value]


def require_protocol(value: object) -> str:
    """Return ``value`` in lower case if it can name a protocol, else raise `InvalidArgument`."""
    if not isinstance(value, str) or not value.isalnum() or not value.isascii():
        raise InvalidArgument(f"protocol must be a name such as 'bin', not {value!r}")
    return value.lower()
