"""The check of the clocks: Redis, the database and this host must have the same time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from clusterer.errors import ClustererError
from clusterer.provisioning.url import database_url
from clusterer.services.context import Context
from clusterer.services.doctor.finding import Finding, error, ok, skipped, warn

REDIS = "clock of redis"
DATABASE = "clock of database"
CHECKS = (REDIS, DATABASE)

WARN_S = 1.0
ERROR_S = 10.0
"""A third of the usual ``duration``: an OpenSIPS node uses its own clock, and would enable nodes
at the wrong time."""


def check(context: Context, *, redis: bool) -> Iterator[Finding]:
    """Compare with this host's clock; ``redis`` says whether Redis can be reached."""
    yield (_compared(REDIS, "Redis", context.nodes.now) if redis else skipped(REDIS, "needs Redis"))
    yield _database(context)


def _database(context: Context) -> Finding:
    try:
        backend = database_url(context.settings).get_backend_name()
        if backend not in ("mysql", "mariadb"):
            return ok(DATABASE, f"{backend} has no clock of its own")
        with context.database.connection("read the time") as connection:

            def now() -> float:
                found = connection.exec_driver_sql("SELECT UNIX_TIMESTAMP(NOW(6))").scalar()
                return float(str(found))

            return _compared(DATABASE, "the database", now)
    except ClustererError:
        return skipped(DATABASE, "needs the table's database")


def _compared(check_name: str, whose: str, now: Callable[[], float]) -> Finding:
    before = time.time()
    theirs = now()
    after = time.time()
    # The server read its clock at some moment of the round trip.
    ahead = theirs - after if theirs > after else min(theirs - before, 0.0)
    if abs(ahead) < WARN_S:
        most_ms = max(abs(ahead), 0.001) * 1000
        return ok(check_name, f"differs from this host's clock by at most {most_ms:.0f} ms")
    text = f"{whose} is {abs(ahead):.1f} s {'ahead of' if ahead > 0 else 'behind'} this host"
    advice = "have NTP set both clocks (chrony, systemd-timesyncd)"
    return (error if abs(ahead) >= ERROR_S else warn)(check_name, text, advice)
