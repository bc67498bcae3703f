"""What a reload does to a cluster, planned without touching anything."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, fields, replace

from clusterer.membership import Node
from clusterer.membership.columns import StateColumns, as_loaded
from clusterer.store.views import ClusterKey, ClusterView

_OURS = ("generation", "version")
"""Fields of a node that the table knows nothing of."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One cluster in Redis with what it knows of the table."""

    view: ClusterView
    dirty: frozenset[int]
    """Machines whose state is not yet written to the table."""
    synced: Mapping[int, str]
    """What the table said when it was last read or written, or may say by our own hand."""

    def edited(self, row: Node) -> bool:
        """Whether an operator changed the state in the ``row`` since we read or wrote it."""
        return self._is_news(row) and not StateColumns.of(row).is_report(self._known(row))

    def reported(self, row: Node) -> bool:
        """Whether another machine wrote its own view of the node to the ``row`` since then."""
        return self._is_news(row) and StateColumns.of(row).is_report(self._known(row))

    def _is_news(self, row: Node) -> bool:
        own = self.view.nodes.get(row.machine_id)
        expected = self._known(row) if own is None else (*self._known(row), StateColumns.of(own))
        return StateColumns.of(row) not in expected

    def _known(self, row: Node) -> tuple[StateColumns, ...]:
        return StateColumns.parse_all(self.synced.get(row.machine_id, ""))


@dataclass(frozen=True, slots=True)
class NodeChange:
    """A node whose row differs from what Redis had."""

    before: Node
    after: Node
    kept: bool = False
    """The state is Redis's own and still has to be written to the table."""
    edited: bool = field(default=False, compare=False)
    """An operator changed the state in the table since we read or wrote it."""

    @property
    def due(self) -> bool:
        """Whether the table has news; a state that only Redis knows is none."""
        return self.edited or not set(self.columns) <= set(StateColumns._fields)

    @property
    def columns(self) -> tuple[str, ...]:
        """What differs, by our names of the columns."""
        return tuple(
            item.name
            for item in fields(Node)
            if item.name not in _OURS
            and getattr(self.before, item.name) != getattr(self.after, item.name)
        )

    @property
    def readdressed(self) -> bool:
        """Whether packets go somewhere else from now on."""
        return self.before.address != self.after.address


@dataclass(frozen=True, slots=True)
class ReloadPlan:
    """What a reload does to one cluster."""

    key: ClusterKey
    version: int
    """Version of the cluster for which the plan was made."""
    added: tuple[Node, ...] = ()
    changed: tuple[NodeChange, ...] = ()
    removed: tuple[Node, ...] = ()
    unchanged: int = 0
    noted: tuple[Node, ...] = field(default=(), repr=False)
    """Unchanged nodes of which Redis must be told that the table agrees."""
    kept: tuple[Node, ...] = ()
    """Nodes of which the table says nothing that can be used: they stay as they are."""
    reported: tuple[tuple[Node, StateColumns], ...] = ()
    """Nodes that keep their state, and what another machine wrote to the table of them."""

    table: Mapping[int, StateColumns] = field(default_factory=dict, repr=False, compare=False)
    """What the table says of the states, by machine_id."""

    @property
    def empty(self) -> bool:
        """Whether nothing is to be written."""
        return not (self.added or self.changed or self.removed or self.noted)


def plan_reload(
    snapshot: Snapshot,
    rows: Iterable[Node],
    *,
    persistent: bool,
    unreadable: Collection[int] = (),
    now: float | None = None,
) -> ReloadPlan:
    """Return how the cluster becomes what the table says (``rows``: its nodes there).

    ``unreadable``: machine_ids whose rows cannot be used; a mistake in one is no wish to remove
    the node. ``now``: UNIX time in seconds, of Redis; a node whose disabled time is over is up
    (None: rows are taken as they are).
    If ``persistent``, a node keeps its state unless an operator edited it in the table. While the
    state is not written to the table yet, it is for the sync to say which wins: it knows both.
    """
    view = snapshot.view
    added, changed, noted, reported, unchanged = [], [], [], [], 0
    wanted = {node.machine_id: node for node in rows}
    for machine_id, row in wanted.items():
        current = view.nodes.get(machine_id)
        loaded = row if now is None else as_loaded(row, now)
        if current is None:
            added.append(loaded)
            continue
        dirty = machine_id in snapshot.dirty
        kept, edited = persistent and dirty, snapshot.edited(row)
        target = _target(current, loaded, kept or (persistent and not edited))
        if persistent and not dirty and snapshot.reported(row):
            reported.append((target, StateColumns.of(row)))
        if target != current:
            changed.append(NodeChange(current, target, kept, edited))
            continue
        unchanged += 1
        stale = snapshot.synced.get(machine_id) != str(StateColumns.of(row))
        if not kept and (dirty or stale):
            noted.append(row)
    gone = [node for node in view.nodes.values() if node.machine_id not in wanted]
    return ReloadPlan(
        key=view.key,
        version=view.version,
        added=tuple(added),
        changed=tuple(changed),
        removed=tuple(node for node in gone if node.machine_id not in unreadable),
        unchanged=unchanged,
        noted=tuple(noted),
        kept=tuple(node for node in gone if node.machine_id in unreadable),
        reported=tuple(reported),
        table={machine_id: StateColumns.of(row) for machine_id, row in wanted.items()},
    )


def _target(current: Node, row: Node, kept: bool) -> Node:
    target = replace(row, generation=current.generation, version=current.version)
    return StateColumns.of(current).applied_to(target) if kept else target
