"""The job functions: each calls one service, and is safe to run twice."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Any

import redis

from clusterer.errors import NewerFormat, OlderFormat, StateUnavailable, WrongKey
from clusterer.runtime.logs import LimitedLog
from workers.runtime import current

logger = logging.getLogger(__name__)

_limited = LimitedLog(logger, 10.0)


def deliver(queue_name: str) -> None:
    """Deliver the logs of the senders that wait in ``queue_name``, for a bounded time."""
    with _redis_may_be_away("deliver"):
        current().deliver(queue_name)


def probe() -> None:
    """Ping the nodes that are due."""
    from clusterer.services.periodic import probe as service  # noqa: PLC0415 - keeps workers light

    with _redis_may_be_away("probe"):
        service.run(current().context)


def check_timeouts() -> None:
    """Find module timeouts."""
    from clusterer.services.periodic import (  # noqa: PLC0415 - keeps workers light
        timeouts as service,
    )

    with _redis_may_be_away("check_timeouts"):
        service.run(current().context)


def sweep() -> None:
    """Enqueue missing delivery jobs."""
    from clusterer.services.periodic import sweep as service  # noqa: PLC0415 - keeps workers light

    with _redis_may_be_away("sweep"):
        service.run(current().context)


def sync() -> None:
    """Write changed states back to the provisioning table."""
    from clusterer.services.periodic import sync as service  # noqa: PLC0415 - keeps workers light

    with _redis_may_be_away("sync"):
        service.run(current().context, current().stop.is_set)


def record_history() -> None:
    """Record a sample of each node's traffic."""
    from clusterer.services.periodic import history as service  # noqa: PLC0415 - the same

    with _redis_may_be_away("record_history"):
        service.run(current().context)


def reach() -> dict[str, Any]:
    """Return to `clusterer doctor` the nodes that this host can reach."""
    from clusterer.services.periodic import reach as service  # noqa: PLC0415 - keeps workers light

    return service.run(current().context)


@contextmanager
def _redis_may_be_away(name: str) -> Iterator[None]:
    try:
        yield
    except NewerFormat as error:
        logger.error("job %s: postponed: %s", name, error)
    except (StateUnavailable, redis.RedisError) as error:
        away = "" if isinstance(error, WrongKey | OlderFormat) else ", Redis is away"
        _limited.warning(
            (name, type(error)), monotonic(), "job %s: postponed%s: %s", name, away, error
        )
