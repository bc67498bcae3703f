"""Messages of the cachedb_local module of OpenSIPS 3.x: a cache in the memory of the nodes."""

from __future__ import annotations

from dataclasses import dataclass

from clusterer.payloads.opensips3.message import FlatMessage3

MODULE = "cachedb-local-repl"


@dataclass(frozen=True, slots=True)
class CacheSet(FlatMessage3, module=MODULE, type=1, name="cache set"):
    """A node stored a value. Chunks of a sync have the same fields."""

    collection: bytes
    key: bytes
    value: bytes
    expires: int
    """0: never. In a packet seconds from now on; in a chunk seconds since the sender's start."""


@dataclass(frozen=True, slots=True)
class CacheRemoved(FlatMessage3, module=MODULE, type=2, name="cache removed"):
    """A node removed a value."""

    collection: bytes
    key: bytes
