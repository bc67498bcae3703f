"""Changes that a reload makes to one cluster."""

from __future__ import annotations

from dataclasses import replace

from clusterer.membership import Node, State
from clusterer.membership.columns import StateColumns
from clusterer.membership.reload_plan import NodeChange, ReloadPlan, Snapshot, plan_reload
from clusterer.membership.views import ClusterKey, ClusterView

KEY = ClusterKey(1, "bin")


def row(machine_id: int, **changes: object) -> Node:
    node = Node(machine_id, 1, machine_id, "bin:10.0.0.1:1", "bin", "10.0.0.1", 1)
    return replace(node, **changes)  # type: ignore[arg-type]


def known(*nodes: Node, dirty: tuple[int, ...] = (), **synced: str) -> Snapshot:
    agreed = {node.machine_id: str(StateColumns.of(node)) for node in nodes}
    other = {int(name.removeprefix("m")): text for name, text in synced.items()}
    return Snapshot(ClusterView.of(KEY, 9, nodes), frozenset(dirty), agreed | other)


def current(machine_id: int, **changes: object) -> Node:
    return row(machine_id, generation=1000, version=5, **changes)


def test_reload_plan_equal_rows_change_nothing() -> None:
    plan = plan_reload(known(current(1), current(2)), [row(1), row(2)], persistent=False)
    assert plan == ReloadPlan(KEY, 9, unchanged=2)
    assert plan.empty


def test_reload_plan_has_new_and_removed_rows() -> None:
    plan = plan_reload(known(current(1), current(2)), [row(2), row(3)], persistent=True)
    assert plan == ReloadPlan(KEY, 9, added=(row(3),), removed=(current(1),), unchanged=1)
    assert not plan.empty


def test_reload_plan_changed_row_keeps_generation_and_version() -> None:
    plan = plan_reload(known(current(1)), [row(1, duration=7, host="10.0.0.2")], persistent=True)
    after = current(1, duration=7, host="10.0.0.2")
    (change,) = plan.changed
    assert change == NodeChange(current(1), after)
    assert change.columns == ("host", "duration")
    assert change.readdressed
    assert not NodeChange(current(1), current(1, duration=7)).readdressed


def test_reload_plan_drops_local_changes() -> None:
    local = current(1, state=State.DOWN)
    plan = plan_reload(known(local, dirty=(1,)), [row(1)], persistent=False)
    assert plan.changed == (NodeChange(local, current(1)),)


def test_reload_plan_in_persistent_mode_keeps_unwritten_state() -> None:
    local = current(1, state=State.PROBING, no_tries=2, last_attempt=77)
    plan = plan_reload(known(local, dirty=(1,)), [row(1, duration=7)], persistent=True)
    (change,) = plan.changed
    assert change == NodeChange(local, replace(local, duration=7), kept=True)
    assert plan_reload(known(local, dirty=(1,)), [row(1)], persistent=True).empty


def test_reload_plan_table_edit_wins_without_unwritten_state() -> None:
    plan = plan_reload(known(current(1)), [row(1, state=State.DOWN)], persistent=True)
    assert plan.changed == (NodeChange(current(1), current(1, state=State.DOWN)),)


def test_reload_plan_records_unknown_agreement() -> None:
    for snapshot in (known(current(1), m1="0 0 0"), known(current(1), dirty=(1,))):
        plan = plan_reload(snapshot, [row(1)], persistent=False)
        assert (plan.unchanged, plan.noted) == (1, (row(1),))
        assert not plan.empty
