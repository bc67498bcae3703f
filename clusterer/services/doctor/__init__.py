"""The health check: Redis, the table, the processes, the nodes and the backlog, part by part."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from clusterer.endpoint import remedy
from clusterer.errors import SettingsError, StateUnavailable
from clusterer.services.context import Context
from clusterer.services.doctor import (
    backlog,
    clocks,
    fleet,
    key_format,
    network,
    paths,
    receiving,
    redis_server,
    table,
    values,
    workers,
)
from clusterer.services.doctor.finding import Finding, Level, error, skipped
from clusterer.services.status import fleet as fleets
from clusterer.store.badvalues import BadValue, collected

__all__ = ["Finding", "Level", "run"]


def run(context: Context) -> Iterator[Finding]:
    """Yield the findings of all checks. Changes nothing, and works without Redis or the table."""
    with collected() as problems:
        yield from _checks(context, problems)


def _checks(context: Context, problems: list[BadValue]) -> Iterator[Finding]:
    away = ""
    try:
        yield from redis_server.check(context)
    except (StateUnavailable, SettingsError) as problem:
        away = str(problem)
        yield error(redis_server.CHECKS[0], away, _advice(problem))
        yield from (skipped(name, "needs Redis") for name in redis_server.CHECKS[1:])
        yield skipped(key_format.CHECK, "needs Redis")
    else:
        yield from _surviving(key_format.CHECK, lambda: key_format.check(context))
    yield from table.check(context, redis=not away)
    yield from _surviving(clocks.CHECKS[0], lambda: clocks.check(context, redis=not away))
    if away:
        yield from (
            *fleet.unknown(),
            *network.unknown(),
            paths.unknown(),
            workers.unknown(),
            receiving.unknown(),
        )
        yield skipped(backlog.CHECK, "needs Redis")
        yield skipped(values.CHECK, "needs Redis")
        return
    yield from _surviving(fleet.CHECKS[0], lambda: _fleet(context))
    yield from _surviving(network.CHECKS[2], lambda: network.check(context))
    yield from _surviving(paths.CHECK, lambda: paths.check(context))
    yield from _surviving(workers.CHECK, lambda: workers.check(context, fleets.read(context)))
    yield from _surviving(receiving.CHECK, lambda: receiving.check(context))
    yield from _surviving(backlog.CHECK, lambda: backlog.check(context))
    yield from _surviving(values.CHECK, lambda: values.check(context, problems))


def _fleet(context: Context) -> Iterator[Finding]:
    yield from fleet.check(context, fleets.read(context))


def _surviving(name: str, check: Callable[[], Iterable[Finding]]) -> Iterator[Finding]:
    """Yield the findings of a part; an error of Redis during the check is a finding as well."""
    try:
        yield from check()
    except (StateUnavailable, SettingsError) as problem:
        yield error(name, str(problem), _advice(problem))


def _advice(problem: StateUnavailable | SettingsError) -> str:
    return "correct the setting" if isinstance(problem, SettingsError) else remedy(problem)
