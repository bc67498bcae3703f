"""Writes changes to the table, and then brings them into Redis."""

from __future__ import annotations

from collections.abc import Callable, Collection
from contextlib import suppress

from clusterer.errors import DatabaseUnavailable, ProvisioningError, StateUnavailable
from clusterer.membership import Event, State
from clusterer.membership.views import all_nodes
from clusterer.provisioning.database import RowRefused
from clusterer.provisioning.names import Names
from clusterer.provisioning.replacing import Replacement, replace_rows
from clusterer.provisioning.rows import RawRow, RowKey, row_key_of
from clusterer.services.context import Context
from clusterer.services.provision.row_changes import Changes, Values
from clusterer.services.table import reload
from clusterer.services.table.reload_report import ReloadReport
from clusterer.store import Cause

Plan = Callable[[list[RawRow]], Changes]
"""Gets the table's rows and returns their changes; raises if the changes are not possible."""

_STATE = {"state", "last_attempt", "no_tries"}

_ATTEMPTS = 20
"""Rounds for rows that another program changes at the same moment."""


def write(context: Context, plan: Plan) -> Changes:
    """Make the changes of ``plan`` in the table; return them.

    A plan holds for the rows from which `write` made it. If another program changed these rows
    meanwhile, `write` makes another plan. Raises `ProvisioningError` (nothing is written, unless
    the error says otherwise) or `StateUnavailable`, and the errors of the plan.
    """
    refused: tuple[RowRefused, list[RawRow]] | None = None
    for _ in range(_ATTEMPTS):
        found = reload.rows(context)
        if refused and refused[1] == found:
            raise refused[0]
        changes = plan(found)
        context.nodes.now()  # without Redis nothing is begun
        try:
            if _written(context, found, changes):
                return changes
        except RowRefused as error:  # another program added the node, or a rule of the table
            refused = error, found
    raise ProvisioningError(
        f"nothing is done: another program changed these rows {_ATTEMPTS} times; try again"
    )


def _written(context: Context, found: list[RawRow], changes: Changes) -> bool:
    row_keys = {change.row_key for change in changes.every}
    if not row_keys:
        return True
    wanted = Replacement(
        add=[changes.values[item.row_key] for item in changes.added],
        change=[
            (item.row_key, {name: changes.values[item.row_key][name] for name in item.columns})
            for item in changes.changed
        ],
        remove=[item.row_key for item in changes.removed],
    )
    seen = [row for row in found if row_key_of(row) in row_keys]
    database = context.database
    with database.connection("change the table") as connection:
        return replace_rows(connection, database.schema, wanted, seen=seen)


def apply(
    context: Context,
    changes: Changes,
    *,
    by: str,
    names: Names,
    reason: str = "",
    also: Collection[RowKey] = (),
    named: Collection[RowKey] = (),
) -> int:
    """Bring the rows into Redis; return the number of nodes that changed in Redis.

    The state of a row replaces the state in Redis if the table got a new state, or if the node
    is in ``named``. Otherwise the state in Redis stays, for example when an operator edits a
    description. ``also``: keys of rows whose unchanged rows `apply` reads as well. Raises
    `ProvisioningError` or `StateUnavailable`; both errors say that the table is changed.
    """
    settled = {c.row_key for c in changes.every if c.before is None or _STATE & set(c.columns)}
    settled |= set(named)
    others = {c.row_key for c in changes.every} | set(changes.unchanged) | set(also)
    applied = 0
    try:
        for only, by_table in ((settled, True), (others - settled, False)):
            if only:
                report = reload.apply_rows(
                    context, only, by=by, settled=by_table, names=names, reason=reason
                )
                applied += len(report.added) + len(report.changed) + len(report.removed)
                _require_good(report, changes)
        for row_key in named:
            _require_state(context, row_key, changes.values[row_key], Cause(by, reason))
    except (StateUnavailable, DatabaseUnavailable) as error:
        raise StateUnavailable(
            f"the table is changed, but not in effect yet ({error}); run `clusterer reload`"
        ) from error
    return applied


def _require_good(report: ReloadReport, changes: Changes) -> None:
    bad = [r for r in report.rejected if r.row_key in report.unreadable & changes.values.keys()]
    if bad:
        raise ProvisioningError(f"the table is changed, but a changed row is invalid: {bad[0]}")


def _require_state(context: Context, row_key: RowKey, values: Values, cause: Cause) -> None:
    """Set the state once more if a sync wrote an older one to the row in between."""
    for key, view in context.nodes.views().items():
        node = view.nodes.get(row_key[1])
        if key.cluster_id == row_key[0] and node and node.state != values["state"]:
            event = Event.SET_UP if values["state"] == State.UP else Event.SET_DOWN
            context.nodes.command(key, row_key[1], event, cause)


def known(context: Context) -> set[RowKey]:
    """Return the keys of the rows of the nodes in Redis; none without Redis."""
    with suppress(StateUnavailable):
        return {node.row_key for node in all_nodes(context.nodes.views().values())}
    return set()
