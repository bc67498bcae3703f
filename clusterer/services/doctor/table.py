"""The checks of the provisioning table: readable, valid, and the same as the nodes in Redis."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from sqlalchemy import Connection, inspect, select

from clusterer.errors import (
    ClustererError,
    DatabaseUnavailable,
    ProvisioningError,
    StateUnavailable,
)
from clusterer.membership.reload_plan import NodeChange
from clusterer.provisioning.address import name_in
from clusterer.provisioning.names import Names
from clusterer.provisioning.rows import RejectedRow, validate
from clusterer.provisioning.schema import TABLE_VERSION, require
from clusterer.provisioning.table import read_rows, try_writing_states
from clusterer.services.context import Context
from clusterer.services.doctor.finding import Finding, error, listed, ok, skipped, warn
from clusterer.services.table import reload, resolve
from clusterer.services.table.reload_report import ReloadReport

TABLE = "table"
ROWS = "table rows"
COMPARISON = "table and redis"
CHECKS = (TABLE, ROWS, COMPARISON)


def check(context: Context, *, redis: bool) -> Iterator[Finding]:
    """Check the table; ``redis``: whether Redis answers, so that the check compares both."""
    try:
        with context.database.connection("read the table") as connection:
            require(connection, context.database.schema)
            registered = _is_registered(connection, context)
            rows = read_rows(connection, context.database.schema)
    except ClustererError as problem:
        yield error(TABLE, str(problem), _advice(problem))
        yield from (skipped(name, "needs the table") for name in (ROWS, COMPARISON))
        return
    yield _unwritable(context) or _table(context, registered=registered)
    names = _names(context) if redis else Names()
    _, rejected = validate(rows, context.database.schema.columns, names)
    yield _rows(len(rows), rejected)
    yield _compared(context, names) if redis else skipped(COMPARISON, "needs Redis")


def _names(context: Context) -> Names:
    """Return names that prefer the addresses in Redis, as a reload does."""
    try:
        return resolve.kept_names(context)
    except StateUnavailable:
        return Names()


def _advice(problem: ClustererError) -> str:
    if isinstance(problem, DatabaseUnavailable):
        if problem.advised:
            return "follow this advice, then run `clusterer doctor` again"
        return "check db_url, the database server and the rights of its user"
    if not isinstance(problem, ProvisioningError):
        return "correct the setting"
    if "has version" in (text := str(problem)) or "has no column" in text:
        return "follow this advice, then run `clusterer reload`"
    return "follow this advice, or set db_url and db_table to the table with the nodes"


def _is_registered(connection: Connection, context: Context) -> bool:
    schema = context.database.schema
    with connection.begin():
        if not inspect(connection).has_table(schema.versions.name):
            return False
        query = select(schema.versions).where(schema.versions.c.table_name == schema.nodes.name)
        return connection.execute(query).first() is not None


def _unwritable(context: Context) -> Finding | None:
    """Return the finding if the sync job of persistent mode cannot write states; else None."""
    if not context.settings.persistent_mode:
        return None
    try:
        with context.database.connection("write states to the table") as connection:
            try_writing_states(connection, context.database.schema)
    except DatabaseUnavailable as problem:
        columns = "state, no_tries and last_attempt"
        grant = f"let this user UPDATE the columns {columns}"
        what = "follow this advice" if problem.advised else grant
        return error(TABLE, str(problem), f"{what}, or turn persistent_mode off")
    return None


def _table(context: Context, *, registered: bool) -> Finding:
    name = context.settings.db_table
    if not registered:
        return warn(
            TABLE,
            f"{name} in {context.database.name} is not in the table 'version': "
            "an OpenSIPS 2.2 would refuse the table",
            "run `clusterer init-db`, which adds the row and changes nothing else",
        )
    return ok(TABLE, f"{name} in {context.database.name}, version {TABLE_VERSION}")


def _rows(count: int, rejected: list[RejectedRow]) -> Finding:
    if rejected:
        text = f"{len(rejected)} of {count} cannot be used: {listed(rejected, between='; ')}"
        return error(ROWS, text, "correct the rows, then run `clusterer reload`")
    if not count:
        return error(ROWS, "the table is empty", "add nodes, then run `clusterer reload`")
    return ok(ROWS, f"{count} rows, all can be used")


def _compared(context: Context, names: Names) -> Finding:
    try:
        found = reload.preview(context, names=names)
    except StateUnavailable:
        return skipped(COMPARISON, "needs Redis")
    except ClustererError as problem:
        return error(COMPARISON, str(problem), _advice(problem))
    if found.rows and not found.loaded:
        return warn(COMPARISON, found.note, "correct the rows, then run `clusterer reload`")
    if found.repaired:
        text = f"Redis has lost or wrong keys: {listed(found.repaired, between='; ')}"
        return error(COMPARISON, text, "run `clusterer reload`")
    return _differing(context, found)


def _differing(context: Context, found: ReloadReport) -> Finding:
    news = [change.after for change in found.changed if change.due]
    differing = sorted(
        (node.cluster_id, node.protocol, node.machine_id)
        for node in (*found.added, *news, *found.removed, *found.kept)
    )
    if not differing:
        return ok(COMPARISON, f"Redis has the table's {found.loaded} nodes")
    moved = [change for change in found.changed if change.led_elsewhere]
    if len(moved) == len(differing):
        return _elsewhere(context, moved)
    places = [f"cluster {c}:{p} node {m}" for c, p, m in differing]
    text = f"table and Redis differ in {listed(places)}"
    return warn(COMPARISON, text, "run `clusterer reload`")


def _elsewhere(context: Context, moved: Sequence[NodeChange]) -> Finding:
    """Return the finding about names that resolve to other addresses than Redis has."""
    places = [
        f"{name_in(c.after.url)} (cluster {c.after.cluster_id}:{c.after.protocol} node "
        f"{c.after.machine_id}) resolves to {c.after.host}, Redis has {c.before.host}"
        for c in moved
    ]
    interval_s = context.settings.resolve_interval
    wait = f", or wait: names are resolved every {interval_s:g} s" if interval_s else ""
    return warn(COMPARISON, listed(places, between="; "), f"run `clusterer reload`{wait}")
