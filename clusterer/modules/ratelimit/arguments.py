"""Arguments of `RateLimit.check`, checked when a pipe is made or changed."""

from __future__ import annotations

from clusterer.errors import InvalidArgument
from clusterer.modules.ratelimit.algorithms import Algorithm
from clusterer.payloads.ratelimit import INT_MAX

MAX_NAME = 1_024
"""Longest name of a pipe, in UTF-8 bytes."""


def wire_name(name: object) -> bytes:
    """Return the bytes of a pipe's name. Raises `InvalidArgument`."""
    if not isinstance(name, str) or not name:
        raise InvalidArgument(f"a pipe's name must be text and not empty, not {name!r:.60}")
    try:
        data = name.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        raise InvalidArgument(
            f"name of pipe {name!r:.60} cannot be UTF-8: {error.reason}"
        ) from error
    if data.decode("utf-8", "surrogateescape") != name:
        raise InvalidArgument(f"name of pipe {name!r:.60} is another name's UTF-8")
    if len(data) > MAX_NAME:
        raise InvalidArgument(
            f"name of pipe {name!r:.60} takes {len(data)} bytes, {MAX_NAME} at most"
        )
    return data


def require_algorithm(name: str, algorithm: int) -> Algorithm:
    """Return the `Algorithm`. Raises `InvalidArgument` if there is no such number."""
    try:
        return Algorithm(algorithm)
    except ValueError:
        raise InvalidArgument(f"pipe {name!r:.60}: there is no algorithm {algorithm!r}") from None


def require_limit(name: str, limit: object, algorithm: Algorithm) -> None:
    """Raise `InvalidArgument` for a limit that ``algorithm`` cannot use or that cannot travel."""
    low, high, what = 0, INT_MAX, "an integer"
    if algorithm is Algorithm.FEEDBACK:
        low, high, what = 1, 99, "a percentage of CPU load, an integer"
    if isinstance(limit, bool) or not isinstance(limit, int) or not low <= limit <= high:
        raise InvalidArgument(
            f"limit of pipe {name!r:.60} must be {what} from {low} to {high}, not {limit!r}"
        )
