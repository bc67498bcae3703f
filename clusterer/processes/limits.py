"""How many files, and so connections, this process may have open."""

from __future__ import annotations

import logging
import resource

from clusterer.runtime.descriptors import room

log = logging.getLogger(__name__)


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
