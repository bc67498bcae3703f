"""Redis streams with the types that a client without decoding really gives."""

from __future__ import annotations

from typing import cast

import redis

Entry = tuple[bytes, dict[bytes, bytes]]


def entries(client: redis.Redis, name: str) -> list[Entry]:
    """Return all entries of a stream, oldest first."""
    return cast("list[Entry]", client.xrange(name))
