"""The health check: Redis, the table, the processes, the nodes and the backlog, part by part."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from clusterer.endpoint import remedy
from clusterer.errors import SettingsError, StateUnavailable
from clusterer.services.context import Context
from clusterer.services.doctor import (
    backlog,
    clocks,
    fleet,
    links,
    network,
    paths,
    receiving,
    redis_server,
    table,
    values,
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
    away = False
    try:
        yield from redis_server.check(context)
    except (StateUnavailable, SettingsError) as problem:
        away = True
        yield error(redis_server.CHECKS[0], str(problem), _advice(problem))
        yield from (skipped(name, "needs Redis") for name in redis_server.CHECKS[1:])
    yield from _with_redis((values.FORMAT_CHECK,), values.check_format, context, away=away)
    yield from table.check(context, redis=not away)
    yield from _surviving(clocks.CHECKS[0], lambda: clocks.check(context, redis=not away))
    for names, check in _parts(context):
        yield from _with_redis(names, check, context, away=away)
    yield from _with_redis(
        (values.CHECK,), lambda context: values.check(context, problems), context, away=away
    )


Check = Callable[[Context], Iterable[Finding]]

_PARTS: Sequence[tuple[Sequence[str], Check]] = (
    (fleet.CHECKS, lambda context: fleet.check(context, fleets.read(context))),
    (network.CHECKS, network.check),
    ((paths.CHECK,), paths.check),
    (
        (network.FROM_WORKERS,),
        lambda context: network.check_from_workers(context, fleets.read(context)),
    ),
    ((receiving.CHECK,), receiving.check),
    ((backlog.CHECK,), backlog.check),
)
"""Checks that need Redis, each with the names of its findings."""

_LINKS: tuple[Sequence[str], Check] = ((links.CHECK,), links.check)


def _parts(context: Context) -> Sequence[tuple[Sequence[str], Check]]:
    return [*_PARTS, _LINKS] if context.settings.dialect3 else _PARTS


def _with_redis(
    names: Sequence[str], check: Check, context: Context, *, away: bool
) -> Iterator[Finding]:
    """Yield the findings of a part that needs Redis; if Redis is away, each check is skipped."""
    if away:
        yield from (skipped(name, "needs Redis") for name in names)
    else:
        yield from _surviving(names[0], lambda: check(context))


def _surviving(name: str, check: Callable[[], Iterable[Finding]]) -> Iterator[Finding]:
    """Yield the findings of a part; an error of Redis during the check is a finding as well."""
    try:
        yield from check()
    except (StateUnavailable, SettingsError) as problem:
        yield error(name, str(problem), _advice(problem))


def _advice(problem: StateUnavailable | SettingsError) -> str:
    return "correct the setting" if isinstance(problem, SettingsError) else remedy(problem)
