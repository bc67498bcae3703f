"""What a reload does to a cluster, planned without touching anything."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from clusterer.membership.columns import StateColumns, as_loaded
from clusterer.membership.node import Node, State
from clusterer.membership.repairs import Keeping, Repairs, plan_repairs
from clusterer.membership.views import ClusterKey, ClusterView

_OURS = ("generation", "epoch", "version")
"""Fields of a node that the table knows nothing of."""


@dataclass(frozen=True, slots=True)
class Damaged:
    """A node's hash that cannot be read whole."""

    values: Mapping[str, Any]
    """Fields that can be used."""
    lost: tuple[str, ...]
    """Names of the others."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One cluster in Redis with what it knows of the table."""

    view: ClusterView
    dirty: frozenset[int]
    """machine_ids of the nodes whose state is not yet written to the table."""
    synced: Mapping[int, str]
    """What the table said when it was last read or written, or may say by our own hand."""
    damaged: Mapping[int, Damaged] = field(default_factory=dict)
    """Nodes whose hash cannot be read whole, by machine_id."""
    keeping: Keeping | None = None
    """What is beside the nodes; None if only some of them are looked at."""

    def edited(self, row: Node) -> bool:
        """Whether an operator changed the state in the ``row`` since we read or wrote it."""
        return self._is_news(row) and not StateColumns.of(row).is_report(self._known(row))

    def reported(self, row: Node) -> bool:
        """Whether another instance wrote its own view of the node to the ``row`` since then."""
        return self._is_news(row) and StateColumns.of(row).is_report(self._known(row))

    def _is_news(self, row: Node) -> bool:
        own = self.view.nodes.get(row.machine_id)
        expected = self._known(row) if own is None else (*self._known(row), StateColumns.of(own))
        return StateColumns.of(row) not in expected

    def _known(self, row: Node) -> tuple[StateColumns, ...]:
        try:
            return StateColumns.parse_all(self.synced.get(row.machine_id, ""))
        except ValueError:  # nothing that we wrote
            return ()


@dataclass(frozen=True, slots=True)
class NodeChange:
    """A node whose row differs from what Redis had."""

    before: Node
    after: Node
    kept: bool = False
    """The state is Redis's own and still has to be written to the table."""
    edited: bool = field(default=False, compare=False)
    """An operator changed the state in the table since we read or wrote it."""
    mended: tuple[str, ...] = ()
    """Fields that Redis had lost or could not be used; ``before`` has those of the table."""

    @property
    def due(self) -> bool:
        """Whether the table has news; a state that only Redis knows is none."""
        news = not set(self.columns) <= set(StateColumns._fields)
        return self.edited or news or bool(self.mended)

    @property
    def is_tried_again(self) -> bool:
        """Whether all senders try the node again: it becomes up, or its epoch was lost."""
        becomes_up = self.after.state is State.UP and self.before.state is not State.UP
        return becomes_up or "epoch" in self.mended

    @property
    def columns(self) -> tuple[str, ...]:
        """What differs, by our names of the columns."""
        return tuple(
            item.name
            for item in fields(Node)
            if item.name in self.mended
            or (
                item.name not in _OURS
                and getattr(self.before, item.name) != getattr(self.after, item.name)
            )
        )

    @property
    def led_elsewhere(self) -> bool:
        """Whether only the address differs to which the name in the URL leads."""
        moved = self.before.host != self.after.host and self.before.url == self.after.url
        named = self.after.host not in self.after.url
        return moved and named and self.columns == ("host",) and not self.mended

    @property
    def reason(self) -> str:
        """What differs, for the audit; where a name in the URL leads now instead of before."""
        if self.led_elsewhere:
            name = self.after.url.split(":")[1].strip("/")
            return f"address changed: {name} {self.before.host} -> {self.after.host}"
        return ", ".join(self.columns)

    @property
    def readdressed(self) -> bool:
        """Whether packets go somewhere else from now on."""
        return self.before.address != self.after.address or "generation" in self.mended


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
    """Nodes that keep their state, and what another instance wrote to the table of them."""

    repairs: Repairs = field(default_factory=Repairs)
    """What is put right beside the nodes."""

    table: Mapping[int, StateColumns] = field(default_factory=dict, repr=False, compare=False)
    """What the table says of the states, by machine_id."""

    @property
    def populated(self) -> bool:
        """Whether the cluster has nodes afterwards."""
        return bool(self.added or self.changed or self.unchanged or self.kept)

    @property
    def empty(self) -> bool:
        """Whether nothing is to be written."""
        return not (self.added or self.changed or self.removed or self.noted or self.repairs)


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
    wanted = {node.machine_id: node for node in rows}
    sorted_rows = _SortedRows(snapshot, persistent=persistent, now=now)
    for row in wanted.values():
        sorted_rows.add(row)
    noted, rewritten = sorted_rows.noted, sorted_rows.rewritten
    gone = [node for node in view.nodes.values() if node.machine_id not in wanted]
    known = {*wanted, *unreadable}
    staying = [node for i, node in view.nodes.items() if i in known and i not in rewritten]
    return ReloadPlan(
        key=view.key,
        version=view.version,
        added=tuple(sorted_rows.added),
        changed=tuple(sorted_rows.changed),
        removed=tuple(node for node in gone if node.machine_id not in unreadable),
        unchanged=sorted_rows.unchanged,
        noted=tuple(noted),
        kept=tuple(node for node in gone if node.machine_id in unreadable),
        reported=tuple(sorted_rows.reported),
        repairs=plan_repairs(
            view,
            snapshot.keeping,
            staying,
            wanted=known,
            noted=[row.machine_id for row in noted if row.machine_id not in snapshot.synced],
            now=now,
        ),
        table={machine_id: StateColumns.of(row) for machine_id, row in wanted.items()},
    )


class _SortedRows:
    """The rows of one cluster, sorted by what a reload does to their nodes."""

    def __init__(self, snapshot: Snapshot, *, persistent: bool, now: float | None) -> None:
        """The arguments are those of `plan_reload`."""
        self._snapshot = snapshot
        self._persistent = persistent
        self._now = now
        self.added: list[Node] = []
        self.changed: list[NodeChange] = []
        self.noted: list[Node] = []
        self.reported: list[tuple[Node, StateColumns]] = []
        self.unchanged = 0

    def add(self, row: Node) -> None:
        """Sort one row."""
        snapshot, persistent = self._snapshot, self._persistent
        loaded = row if self._now is None else as_loaded(row, self._now)
        current, mended = self._current(loaded)
        if current is None:
            self.added.append(loaded)
            return
        dirty = row.machine_id in snapshot.dirty
        kept, edited = persistent and dirty, snapshot.edited(row)
        target = _target(current, loaded, kept or (persistent and not edited))
        if persistent and not dirty and snapshot.reported(row):
            self.reported.append((target, StateColumns.of(row)))
        if target != current or mended:
            self.changed.append(NodeChange(current, target, kept, edited, mended))
            return
        self.unchanged += 1
        stale = snapshot.synced.get(row.machine_id) != str(StateColumns.of(row))
        if not kept and (dirty or stale):
            self.noted.append(row)

    @property
    def rewritten(self) -> set[int]:
        """The machine_ids of the nodes that the reload writes."""
        return {node.machine_id for node in (*self.added, *(each.after for each in self.changed))}

    def _current(self, loaded: Node) -> tuple[Node | None, tuple[str, ...]]:
        """Return the node in Redis, and the fields that were lost: those are taken from the row."""
        current = self._snapshot.view.nodes.get(loaded.machine_id)
        damaged = self._snapshot.damaged.get(loaded.machine_id)
        if current is not None or damaged is None:
            return current, ()
        return replace(loaded, **damaged.values), damaged.lost


def plan_addresses(view: ClusterView, hosts: Mapping[int, str]) -> ReloadPlan:
    """Return how nodes get other addresses, by machine_id, and keep all else.

    What is known of the table stays as it is: it was not read.
    """
    nodes = [(view.nodes[machine_id], host) for machine_id, host in sorted(hosts.items())]
    return ReloadPlan(
        key=view.key,
        version=view.version,
        changed=tuple(
            NodeChange(node, replace(node, host=host), kept=True) for node, host in nodes
        ),
        unchanged=len(view.nodes) - len(nodes),
        table={node.machine_id: StateColumns.of(node) for node, _ in nodes},
    )


def _target(current: Node, row: Node, kept: bool) -> Node:
    target = replace(
        row, generation=current.generation, epoch=current.epoch, version=current.version
    )
    return StateColumns.of(current).applied_to(target) if kept else target
