"""Runs all processes of one host under one supervisor."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing
from dataclasses import replace

from clusterer.errors import ProvisioningError
from clusterer.processes import (
    ChildSpec,
    EmbeddedRedis,
    Line,
    ProcessGroup,
    Supervisor,
    child_environment,
    python_command,
)
from clusterer.runtime.logs import about_machine_id
from clusterer.runtime.stop import stop_on_signals
from clusterer.services.context import Context
from clusterer.services.table import init_db, reload
from clusterer.services.table.reload_report import ReloadReport, log_faults
from clusterer.settings import WORKER_KINDS, Settings, require_server_id
from clusterer.settings.sources import ORIGINS_VARIABLE

log = logging.getLogger(__name__)

EXAMPLE_SERVER_ID = 1
_BY = "clusterer up"


def run(
    settings: Settings,
    say: Callable[[Line], None],
    *,
    console_port: int | None = None,
    origins: Mapping[str, str] | None = None,
) -> None:
    """Run until SIGTERM or SIGINT; all children are gone when this returns.

    Without a configured Redis `run` starts an embedded one; without a configured database it makes
    and fills the SQLite file. Then `run` loads the table, and starts instance, workers and
    scheduler, with ``console_port`` also the console, which shows ``origins``, where the settings
    come from. ``say`` gets their lines. Raises `ClustererError` if the start fails.
    """
    settings = with_server_id(settings)
    with ExitStack() as stack:
        redis = EmbeddedRedis(settings)
        stack.callback(redis.close)
        group = stack.enter_context(ProcessGroup())
        found = [] if settings.redis_url else [redis.start(group)]
        with closing(Context(settings)) as context:
            load(context)
        stop = stack.enter_context(stop_on_signals())
        supervisor = Supervisor(group, stop, say)
        for spec in found:
            supervisor.watch(spec)
        own = about_machine_id(settings.server_id, ())
        log.info("instance %d: running until Ctrl-C or SIGTERM", settings.server_id, extra=own)
        supervisor.run(children(settings, console_port, origins or {}))


def with_server_id(settings: Settings) -> Settings:
    """Return the settings with a server_id: the example's first node without a configured database.

    Raises `SettingsError` if a database is configured and no server_id: only the operator knows it.
    """
    if settings.db_url:
        require_server_id(settings)
    if settings.server_id:
        return settings
    return replace(settings, server_id=EXAMPLE_SERVER_ID)


def load(context: Context) -> None:
    """Load the table into Redis; without ``db_url`` first make the SQLite file with example rows.

    While the database is away, `load` keeps the nodes in Redis; it raises if Redis has no node.
    """
    try:
        report = _load(context)
    except ProvisioningError as error:
        if not context.nodes.clusters():
            raise
        log.warning("up: table not loaded: %s; using the nodes in Redis", error)
        return
    log_faults(report)


def _load(context: Context) -> ReloadReport:
    if context.settings.db_url:
        return reload.run(context, by=_BY)
    init_db.run(context)
    report = reload.run(context, by=_BY)
    if report.rows:
        return report
    for row in init_db.run(context, example=True).rows_added:
        place = about_machine_id(row.machine_id, (), cluster=row.cluster_id, url=row.url)
        log.info(
            "cluster %(cluster)d node %(machine_id)d: example added: %(url)s", place, extra=place
        )
    return reload.run(context, by=_BY)


def children(
    settings: Settings, console_port: int | None = None, origins: Mapping[str, str] | None = None
) -> Iterator[ChildSpec]:
    """Yield the processes to run: the instance, its workers, the scheduler, and the console."""
    kinds = [kind for kind in WORKER_KINDS if settings.persistent_mode or kind != "database"]
    commands = {"node": python_command("clusterer", "node")}
    commands |= {kind: python_command("workers", kind) for kind in kinds}
    commands["scheduler"] = python_command("scheduler")
    if console_port is not None:
        port = str(console_port)
        commands["console"] = python_command("clusterer", "console", "--port", port)
    for place, (name, command) in enumerate(commands.items()):
        environment = child_environment(_with_port(settings, place))
        if name == "console" and origins:
            environment[ORIGINS_VARIABLE] = json.dumps(dict(origins))
        yield ChildSpec(name, command, environment)


def _with_port(settings: Settings, place: int) -> Settings:
    """Return the settings with a port for metrics that no other child has."""
    if not settings.metrics_port:
        return settings
    return replace(settings, metrics_port=settings.metrics_port + place)
