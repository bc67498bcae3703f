"""Condition and columns of a node, and the time of its next check."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusterer.membership import Condition, Event, Node, State, apply, next_look
from clusterer.membership.columns import StateColumns, as_loaded
from clusterer.membership.views import ClusterKey, ClusterView, node_of

NODE = Node(
    id=2,
    cluster_id=1,
    machine_id=2,
    url="bin:localhost:5566",
    protocol="bin",
    host="127.0.0.1",
    port=5566,
    last_attempt=100,
    failed_attempts=3,
    duration=30,
)
PROBE_INTERVAL = 1.5


@pytest.mark.parametrize(
    ("state", "no_tries", "failed_attempts", "condition"),
    [
        (State.DOWN, 0, 3, Condition.DOWN),
        (State.DOWN, 3, 3, Condition.DOWN),
        (State.UP, 0, 3, Condition.UP),
        (State.UP, 9, 3, Condition.UP),
        (State.PROBING, 0, 3, Condition.PROBING),
        (State.PROBING, 2, 3, Condition.PROBING),
        (State.PROBING, 3, 3, Condition.DISABLED),
        (State.PROBING, 4, 3, Condition.DISABLED),
        (State.PROBING, 0, 0, Condition.DISABLED),
    ],
)
def test_node_condition_follows_state_and_attempts(
    state: State, no_tries: int, failed_attempts: int, condition: Condition
) -> None:
    node = replace(NODE, state=state, no_tries=no_tries, failed_attempts=failed_attempts)
    assert node.condition is condition


@pytest.mark.parametrize("state", [0, 1, 2])
def test_node_state_as_number_means_the_same(state: Any) -> None:
    assert replace(NODE, state=state).condition is replace(NODE, state=State(state)).condition


def test_node_address_is_resolved_host() -> None:
    assert NODE.address == ("127.0.0.1", 5566)


@pytest.mark.parametrize(
    ("destination", "found"),
    [
        (NODE.destination, NODE),
        ("1/2/9", None),  # an address before
        ("1/3/0", None),
        ("7/2/0", None),
        ("1", None),
        ("x/2/0", None),
        ("1/-2/0", None),
        ("", None),
    ],
)
def test_node_of_destination_is_that_node_or_none(destination: str, found: Node | None) -> None:
    key = ClusterKey(1, "bin")
    assert node_of(destination, {key: ClusterView.of(key, 1, [NODE])}) is found


def test_node_enabled_at_is_duration_after_last_attempt() -> None:
    assert NODE.enabled_at == 130


def test_node_states_have_numbers_of_table() -> None:
    assert {state.name: state.value for state in State} == {"DOWN": 0, "UP": 1, "PROBING": 2}


def test_node_is_frozen() -> None:
    node: Any = NODE
    with pytest.raises(FrozenInstanceError):
        node.state = State.DOWN


@pytest.mark.parametrize(
    ("state", "no_tries", "now", "due"),
    [
        (State.DOWN, 0, 110.0, None),
        (State.DOWN, 3, 110.0, None),
        (State.UP, 0, 110.0, None),
        (State.UP, 1, 110.0, 130),  # to be settled
        (State.UP, 1, 500.0, 130),  # overdue stays due
        (State.PROBING, 0, 110.0, 111.5),  # next ping
        (State.PROBING, 2, 110.0, 111.5),
        (State.PROBING, 3, 110.0, 130),  # to be enabled
        (State.PROBING, 3, 100.75, 130.75),  # failed in this very second
        (State.UP, 1, 100.75, 130.75),
        (State.PROBING, 3, 101.0, 130),
    ],
)
def test_node_next_check_follows_condition(
    state: State, no_tries: int, now: float, due: float | None
) -> None:
    assert next_look(replace(NODE, state=state, no_tries=no_tries), now, PROBE_INTERVAL) == due


@given(
    st.sampled_from(State),
    st.integers(0, 5),
    st.integers(0, 60),
    st.floats(0, 1e9, allow_nan=False),
)
def test_node_looked_at_when_due_does_not_stay_stuck(
    state: State, no_tries: int, duration: int, failed: float
) -> None:
    """A disabled node waits for its whole duration and changes at the first check after it."""
    node = replace(
        NODE, state=state, no_tries=no_tries, duration=duration, last_attempt=int(failed)
    )
    due = next_look(node, failed, PROBE_INTERVAL)
    if due is None:
        assert node.condition is Condition.DOWN or (node.condition is Condition.UP and not no_tries)
    elif node.condition is Condition.PROBING:
        assert due == failed + PROBE_INTERVAL
    else:
        assert due - failed == pytest.approx(duration, abs=1e-6)
        after = apply(node, Event.DURATION_ELAPSED, due)
        assert (after.condition, after.no_tries) == (Condition.UP, 0)
        assert next_look(after, due, PROBE_INTERVAL) is None


# -- the columns that persistent mode writes ---------------------------------------------------

COLUMNS = StateColumns(state=2, no_tries=3, last_attempt=1_700_000_000)


def test_node_columns_apply_to_another_node() -> None:
    changed = COLUMNS.applied_to(NODE)
    assert (changed.state, changed.no_tries, changed.last_attempt) == COLUMNS
    assert StateColumns.of(changed) == COLUMNS
    assert COLUMNS.applied_to(replace(changed, description="other")).description == "other"


def test_node_columns_survive_text() -> None:
    assert str(COLUMNS) == "2 3 1700000000"
    assert StateColumns.parse(str(COLUMNS)) == COLUMNS


@pytest.mark.parametrize("text", ["", "2 3", "2 3 4 5", "2 3 x", "2  3 4"])
def test_node_columns_of_other_text_raise(text: str) -> None:
    with pytest.raises(ValueError):
        StateColumns.parse(text)


def test_node_unknown_state_raises() -> None:
    with pytest.raises(ValueError, match="3 is not a valid State"):
        COLUMNS._replace(state=3).applied_to(NODE)


@pytest.mark.parametrize(
    ("says", "report"),
    [
        ((2, 0, 0), True),
        ((2, 1, 100), True),
        ((1, 2, 100), True),
        ((1, 1, 101), True),
        ((1, 2, 0), True),
        ((1, 1, 100), False),
        ((1, 1, 0), False),
        ((1, 0, 100), False),
        ((1, 0, 101), False),
        ((1, 0, 0), False),
        ((0, 2, 101), False),
    ],
)
def test_node_report_differs_from_edit(says: tuple[int, int, int], report: bool) -> None:
    known = (StateColumns(1, 0, 0), StateColumns(2, 1, 100))
    assert StateColumns(*says).is_report(known) is report


def test_node_columns_in_list_are_parsed() -> None:
    columns = StateColumns(2, 1, 100), StateColumns(1, 0, 0)
    assert StateColumns.parse_all(",".join(map(str, columns))) == columns
    assert StateColumns.parse_all("") == ()


RUBBISH = 140_733_193_387_992
"""A last_attempt as OpenSIPS 2.2 writes it: 32 bits of it are undefined."""


@pytest.mark.parametrize(
    ("row", "loaded"),
    [
        ((2, 3, 970), (1, 0, 970)),
        ((2, 1, 970), (1, 0, 970)),
        ((2, 3, 0), (1, 0, 0)),
        ((2, 3, 971), (2, 3, 971)),
        ((2, 1, 1000), (2, 1, 1000)),
        ((2, 3, 1001), (1, 0, 0)),
        ((2, 1, RUBBISH), (1, 0, 0)),
        ((1, 2, RUBBISH), (1, 0, 0)),
        ((0, 2, RUBBISH), (0, 0, 0)),
        ((0, 2, 0), (0, 2, 0)),
        ((1, 2, 0), (1, 2, 0)),
        ((2, 0, 0), (2, 0, 0)),
    ],
)
def test_loaded_row_whose_time_is_over_is_up(
    row: tuple[int, int, int], loaded: tuple[int, int, int]
) -> None:
    node = StateColumns(*row).applied_to(NODE)
    assert as_loaded(node, 1000.5) == StateColumns(*loaded).applied_to(NODE)


def test_loaded_row_with_no_attempts_allowed_is_up_in_time() -> None:
    node = replace(NODE, state=State.PROBING, failed_attempts=0, last_attempt=970)
    assert as_loaded(node, 999.9) == node
    assert as_loaded(node, 1000).state is State.UP


@pytest.mark.parametrize(("now", "seconds"), [(100, 30), (129.4, 1), (130, 0), (999, 0), (9, 30)])
def test_disabled_node_is_enabled_within_its_duration(now: float, seconds: int) -> None:
    node = replace(NODE, state=State.PROBING, no_tries=3)
    assert node.enabled_in_s(now) == seconds
    assert replace(node, no_tries=1).enabled_in_s(now) is None
