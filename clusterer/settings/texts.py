"""Values of settings that are written as text; a text that is none raises `ValueError`."""

from __future__ import annotations

from functools import lru_cache

_TRUE = frozenset({"1", "yes", "true", "on"})
_FALSE = frozenset({"0", "no", "false", "off", ""})
_MAX_DIGITS = 10
"""Digits of the largest cluster_id, a signed 32-bit integer."""


def read_bool(text: str) -> bool:
    """Return the value of a switch: "yes", "no" and the like."""
    word = text.strip().lower()
    if word not in _TRUE | _FALSE:
        raise ValueError(word)
    return word in _TRUE


@lru_cache(maxsize=64)
def read_cluster_ids(text: str) -> frozenset[int]:
    """Return the cluster_ids, 1 to 2**31 - 1, of a list such as "2,5"; none of an empty text."""
    if not text.strip():
        return frozenset()
    return frozenset(map(_cluster_id, text.split(",")))


def _cluster_id(text: str) -> int:
    digits = text.strip()
    if digits.isascii() and digits.isdigit() and len(digits) <= _MAX_DIGITS:
        number = int(digits)
        if 0 < number < 2**31:
            return number
    raise ValueError(text)
