"""Looking through all our keys for those that hold another type than they have to."""

from __future__ import annotations

from itertools import islice

import redis

from clusterer.store.badvalues import BadValue, text, wrong_types

_MOST_KEYS = 20_000
"""Keys looked at: some 100 ms. A key per registration and node cannot be more in practice."""

_AT_ONCE = 1000


def wrong_keys(client: redis.Redis) -> list[BadValue]:
    """Return the keys that hold a wrong type. Takes a scan."""
    names = islice(map(text, client.scan_iter(match="clusterer:*", count=1000)), _MOST_KEYS)
    found: list[BadValue] = []
    while batch := list(islice(names, _AT_ONCE)):
        found += wrong_types(client, batch)
    return found
