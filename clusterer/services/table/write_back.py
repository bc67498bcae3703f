"""Writes changed states back to the table (persistent mode)."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from time import monotonic
from typing import TYPE_CHECKING

from clusterer.errors import InvalidArgument
from clusterer.membership import Node
from clusterer.membership.columns import StateColumns, as_loaded
from clusterer.provisioning.rows import RawRow, state_columns
from clusterer.provisioning.table import StateUpdate, read_states, write_states
from clusterer.runtime.logs import about
from clusterer.services.context import Context
from clusterer.store import Cause, ClusterKey
from clusterer.store.dirty import DirtyNode, DirtyNodes

if TYPE_CHECKING:
    from sqlalchemy import Connection

log = logging.getLogger(__name__)

_BATCH = 100
"""Nodes per batch: after each batch `flush` notes in Redis the states that the table has."""

EDITED = "edited in table"
"""The audit event of a node whose state an operator changed in the table."""

REPORTED = "reported in table"
"""The audit event of a node for which another node wrote a state of its own to the table."""


@dataclass(frozen=True, slots=True)
class SyncReport:
    """The result of one sync."""

    written: int = 0
    """Nodes whose state the table has now."""
    edited: tuple[Node, ...] = ()
    """Nodes that took over an edit made in the table, with the state after that."""
    dropped: tuple[str, ...] = ()
    """Nodes whose state cannot be written, each with the reason."""
    waiting: int = 0
    """Nodes that the next sync has to look at."""
    error: str = ""
    """Error of the database; empty without one."""

    def merged(self, later: SyncReport) -> SyncReport:
        """Return the report of this sync and a ``later`` one."""
        return SyncReport(
            self.written + later.written,
            self.edited + later.edited,
            self.dropped + later.dropped,
            later.waiting,
            later.error,
        )


def flush(
    context: Context, *, budget_s: float = math.inf, stopped: Callable[[], bool] = lambda: False
) -> SyncReport:
    """Write changed states to the table in persistent mode; otherwise do nothing.

    Safe to run twice or twice at once. Nodes that are left after ``budget_s`` seconds, or when
    ``stopped`` returns True, stay marked for a later call. Raises `ProvisioningError` if the
    database cannot be used, `StateUnavailable`.
    """
    if not context.settings.persistent_mode:
        return SyncReport()
    marks = DirtyNodes(context.settings, context.redis)
    found = marks.find(context.nodes.clusters())
    if not found:
        return SyncReport()
    report, left = SyncReport(), 0
    deadline = monotonic() + budget_s
    with context.database.connection("write states to the table") as connection:
        for start in range(0, len(found), _BATCH):
            if start and (stopped() or monotonic() > deadline):
                left = len(found) - start
                break
            done = _written(context, marks, connection, found[start : start + _BATCH])
            report = replace(report.merged(done), waiting=report.waiting + done.waiting)
    if context.database.away:
        log.warning("database %s: back; sync writes to the table again", context.database.name)
    context.database.away = False
    return replace(report, waiting=report.waiting + left)


def note_report(context: Context, node: Node, says: StateColumns, *, by: str) -> None:
    """Record in the audit that another node wrote its own view of a node to the table."""
    reason = f"another node's process wrote {says.named}; Redis has {StateColumns.of(node).named}"
    context.nodes.note(node, REPORTED, Cause(by, reason))


def _written(
    context: Context,
    marks: DirtyNodes,
    connection: Connection,
    wanted: Sequence[tuple[ClusterKey, int]],
) -> SyncReport:
    """Write the states of some nodes, and note the results in Redis."""
    schema = context.database.schema
    taken = marks.begin(wanted)
    updates = [StateUpdate(item.node, frozenset(item.synced)) for item in taken]
    missed = {item.node for item in write_states(connection, schema, updates)}
    rows = read_states(connection, schema, missed)
    outcome = _Outcome(context, marks)
    for item in taken:
        if item.node in missed:
            outcome.settle(item, rows.get(item.node.id))
        else:
            outcome.written(item)
    return outcome.report()


class _Outcome:
    """Collects the result of each node, and notes all results in Redis."""

    def __init__(self, context: Context, marks: DirtyNodes) -> None:
        self._context = context
        self._marks = marks
        self._ended: list[tuple[DirtyNode, StateColumns | None]] = []
        self._written = 0
        self._waiting = 0
        self._edited: list[Node] = []
        self._dropped: list[str] = []

    def report(self) -> SyncReport:
        again = self._marks.end(self._ended)
        return SyncReport(
            written=self._written,
            edited=tuple(self._edited),
            dropped=tuple(self._dropped),
            waiting=self._waiting + again,
        )

    def written(self, item: DirtyNode) -> None:
        self._written += 1
        self._ended.append((item, StateColumns.of(item.node)))

    def settle(self, item: DirtyNode, row: RawRow | None) -> None:
        """Decide about a node whose row had another state than the expected one."""
        if row is None:
            self._drop(item, "row missing or of another node; `clusterer reload` removes the node")
            return
        try:
            says = state_columns(row, self._context.database.schema.columns)
        except InvalidArgument as error:
            self._drop(item, f"another program wrote an invalid value to the row: {error}")
            return
        if says == StateColumns.of(item.node):
            self.written(item)
            return
        known = self._marks.synced(item.node)
        if says in known:
            # Not an edit: another sync job wrote this state a moment ago. The next sync decides.
            self._waiting += 1
        elif says.is_report(known):
            self._note_report(item, says)
        else:
            self._adopt(item, says)

    def _drop(self, item: DirtyNode, why: str) -> None:
        node = item.node
        place = f"cluster {node.cluster_id}:{node.protocol} node {node.machine_id}, row {node.id}"
        log.warning("%s: state not written to the table: %s", place, why, extra=about(node))
        self._dropped.append(f"{place}: {why}")
        self._ended.append((item, None))

    def _note_report(self, item: DirtyNode, says: StateColumns) -> None:
        """Leave the node as it is; the next sync replaces the other node's view in the table."""
        note_report(self._context, item.node, says, by="sync")
        self._ended.append((replace(item, mark=_NO_MARK), says))

    def _adopt(self, item: DirtyNode, says: StateColumns) -> None:
        """Take over an edit made in the table: an edit wins over the state in Redis."""
        reason = f"table has {says.named}, not {StateColumns.of(item.node).named}"
        after = as_loaded(says.applied_to(item.node), self._context.nodes.now())
        node = self._context.nodes.replace(item.node, after, EDITED, Cause("sync", reason))
        if node is None:
            self._waiting += 1
            return
        self._edited.append(node)
        # The take-over marked the node. If the node has changed again since, the mark stays.
        mark = str(node.version) if StateColumns.of(node) == says else _NO_MARK
        self._ended.append((replace(item, node=node, mark=mark), says))


_NO_MARK = "none"
"""Equal to no mark: `end` notes the state in the table, and the node stays marked."""
