"""The number of sockets to other hosts that this process may have open, by RLIMIT_NOFILE."""

from __future__ import annotations

import logging
import resource

log = logging.getLogger(__name__)

OTHER_FILES = 64
"""Descriptors kept free for everything else: Redis, logs, listening sockets, programs."""

UNLIMITED = 10**9

_PROBER_PART = 8
"""The prober of a delivery worker gets one descriptor of so many; the deliveries get the others."""

_PROBER_LEAST, _PROBER_MOST = 4, 800
"""Sockets of one check, and of all checks that a prober makes at once."""


def room() -> int:
    """Return how many sockets this process may have open now, 1 or more."""
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return UNLIMITED if files == resource.RLIM_INFINITY else max(files - OTHER_FILES, 1)


def prober_room() -> int:
    """Return how many sockets the prober in a delivery worker may have open now, 4 to 800."""
    return min(max(room() // _PROBER_PART, _PROBER_LEAST), _PROBER_MOST)


def delivery_room() -> int:
    """Return how many connections to peers a delivery worker may have open now, 1 or more."""
    return max(room() - prober_room(), 1)


def allow_files() -> int:
    """Raise the limit of open files to what the system allows, and return it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except (OSError, ValueError) as error:
            log.warning("cannot raise the limit of open files from %d: %s", soft, error)
            return soft
    return hard


def allow_connections(count: int) -> int:
    """Raise the limit of open files to what the system allows; return how many connections fit.

    Warns if that is less than ``count``.
    """
    soft = allow_files()
    fit = room()
    if fit < count:
        log.warning(
            "max_connections is %d, but this process may open %d files: about %d connections fit "
            "(ulimit -n, LimitNOFILE=)",
            count,
            soft,
            fit,
        )
    return min(fit, count)
