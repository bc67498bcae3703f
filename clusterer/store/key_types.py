"""The type of each of our keys, and the remedy for a key of another type.

Those of `clusterer.jobs` are among them: `clusterer doctor` checks the types of all keys at once.
"""

from __future__ import annotations

import re
from typing import Final

STRING, HASH, SET, SORTED_SET, STREAM = "string", "hash", "set", "zset", "stream"
LIST = "list"

NAMES: Final = {
    STRING: "a string",
    HASH: "a hash",
    SET: "a set",
    SORTED_SET: "a sorted set",
    STREAM: "a stream",
    LIST: "a list",
    "none": "nothing",
}
"""Redis's names of types, and their names in messages."""

_TYPES: Final = tuple(
    (re.compile(rf"clusterer:{pattern}", re.DOTALL), kind)
    for pattern, kind in (
        (r"(clusters|queues|instances|senders|handovers)", SET),
        (r"(loaded|format|registrations)", STRING),
        (r"(paths|console:users)", HASH),
        (r"console:ended", SORTED_SET),
        (r"(log|notify|capture|ring|prober-ring):.*", STREAM),
        (r"(counters|committed|committed-count|closing|stats|sums):.*", HASH),
        (r"(modules|shares|paths|listings|links):.*", HASH),
        (r"(inquiries|answer):.*", LIST),
        (r"(pending|waiting):.*", SET),
        (r"(lease|enqueued|prober):.*", STRING),
        (r"(last-seen|muted):.*", SORTED_SET),
        (r"(scheduled-jobs|refused-jobs)", SORTED_SET),
        (r"scheduler-lock", STRING),
        (r"(scheduler|junk-totals):.*", HASH),
        (r"junk:.*", LIST),
        (r"\d+:(events|pathevents)", STREAM),
        (r"\d+:[^:]+:history:.*", STREAM),
        (r"\d+:[^:]+:nodes", SET),
        (r"\d+:[^:]+:node:.*", HASH),
        (r"\d+:[^:]+:version", STRING),
        (r"\d+:[^:]+:(due|dirty)", SORTED_SET),
        (r"\d+:[^:]+:(synced|suspicions|confirmed)", HASH),
        (r"\d+:[^:]+:probers", SORTED_SET),
        (r"\d+:[^:]+:prober-ring", STREAM),
    )
)

_FROM_TABLE: Final = re.compile(
    r"clusterer:(clusters|\d+:([^:]+:(nodes|node:.*|version|due|dirty|synced)|events))"
)


def expected_type(key: str) -> str:
    """Return Redis's name of the type of ``key``, empty for a key that is not ours."""
    return next((kind for pattern, kind in _TYPES if pattern.fullmatch(key)), "")


def remedy(key: str) -> str:
    """Return the operator's remedy for a key with a bad value."""
    if _FROM_TABLE.fullmatch(key):
        return "run `clusterer reload`"
    return f"correct it with redis-cli, or delete it: `redis-cli DEL {key}`"
