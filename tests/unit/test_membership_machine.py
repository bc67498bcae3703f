"""The node state machine: the table is complete, and each of its rows does what the design says."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusterer.membership import TRANSITIONS, Condition, Event, Node, State, apply, next_look
from clusterer.membership import machine as machine_module

NOW = 1_000.9
OUTSIDE = {"failed_attempts": 3, "duration": 30, "description": "Node B", "version": 8}


def node(condition: Condition, *, no_tries: int = 0, last_attempt: int = 990) -> Node:
    """Return a node in ``condition`` that failed 10 s ago and is disabled by 3 failures."""
    state = {Condition.DOWN: State.DOWN, Condition.UP: State.UP}.get(condition, State.PROBING)
    made = Node(
        id=2,
        cluster_id=1,
        machine_id=2,
        url="bin:192.168.0.6:5566",
        protocol="bin",
        host="192.168.0.6",
        port=5566,
        state=state,
        no_tries=no_tries,
        last_attempt=last_attempt,
        **OUTSIDE,  # type: ignore[arg-type]  # fields that no event touches
    )
    assert made.condition is condition
    return made


DOWN, UP, PROBING, DISABLED = Condition
FAILURES = (Event.SEND_FAILED, Event.SUSPECTED)

# condition, no_tries before, event, seconds since the last attempt,
# condition after, no_tries after, whether last_attempt becomes now
ROWS = [
    *((UP, 0, event, 10, PROBING, 1, True) for event in FAILURES),
    *((UP, 1, event, 10, PROBING, 2, True) for event in FAILURES),
    *((UP, 2, event, 10, DISABLED, 3, True) for event in FAILURES),
    *((UP, 7, event, 10, DISABLED, 8, True) for event in FAILURES),
    (UP, 0, Event.DURATION_ELAPSED, 30, UP, 0, False),
    (UP, 2, Event.DURATION_ELAPSED, 30, UP, 0, False),
    (UP, 2, Event.DURATION_ELAPSED, 31, UP, 0, False),
    (UP, 2, Event.DURATION_ELAPSED, 29, UP, 2, False),
    *((PROBING, 0, event, 10, PROBING, 1, True) for event in (*FAILURES, Event.PROBE_FAILED)),
    *((PROBING, 1, event, 10, PROBING, 2, True) for event in (*FAILURES, Event.PROBE_FAILED)),
    *((PROBING, 2, event, 10, DISABLED, 3, True) for event in (*FAILURES, Event.PROBE_FAILED)),
    (PROBING, 0, Event.PROBE_SUCCEEDED, 10, UP, 0, False),
    (PROBING, 2, Event.PROBE_SUCCEEDED, 10, UP, 2, False),
    (PROBING, 1, Event.CONFIRMED, 10, UP, 1, False),
    (DISABLED, 3, Event.CONFIRMED, 10, UP, 3, False),
    (DISABLED, 3, Event.CONFIRMED, 99, UP, 3, False),
    (DISABLED, 3, Event.DURATION_ELAPSED, 30, UP, 0, False),
    (DISABLED, 9, Event.DURATION_ELAPSED, 99, UP, 0, False),
    (DISABLED, 3, Event.DURATION_ELAPSED, 29, DISABLED, 3, False),
    *((condition, 3, Event.SET_DOWN, 10, DOWN, 3, False) for condition in (DOWN, UP, DISABLED)),
    (PROBING, 2, Event.SET_DOWN, 10, DOWN, 2, False),
    *((condition, 3, Event.SET_UP, 10, UP, 0, False) for condition in (DOWN, UP, DISABLED)),
    (PROBING, 2, Event.SET_UP, 10, UP, 0, False),
]

UNCHANGED = [
    *((DOWN, event) for event in Event if event is not Event.SET_UP),
    (UP, Event.PROBE_FAILED),
    (UP, Event.PROBE_SUCCEEDED),
    (UP, Event.CONFIRMED),
    (PROBING, Event.DURATION_ELAPSED),
    (DISABLED, Event.SEND_FAILED),
    (DISABLED, Event.SUSPECTED),
    (DISABLED, Event.PROBE_FAILED),
    (DISABLED, Event.PROBE_SUCCEEDED),
]


def test_machine_table_has_every_pair() -> None:
    assert set(TRANSITIONS) == set(product(Condition, Event))
    assert len(TRANSITIONS) == 4 * 8


def test_machine_rows_cover_whole_table() -> None:
    changing = {(condition, event) for condition, _, event, *_ in ROWS}
    assert changing | set(UNCHANGED) == set(TRANSITIONS)
    assert changing & set(UNCHANGED) == {(DOWN, Event.SET_DOWN)}


@pytest.mark.parametrize(("before", "tries", "event", "ago", "after", "tries_after", "dated"), ROWS)
def test_machine_row_gives_its_cell(
    *,
    before: Condition,
    tries: int,
    event: Event,
    ago: int,
    after: Condition,
    tries_after: int,
    dated: bool,
) -> None:
    last_attempt = int(NOW) - ago
    old = node(before, no_tries=tries, last_attempt=last_attempt)
    new = apply(old, event, NOW)
    assert new.condition is after
    assert new.no_tries == tries_after
    assert new.last_attempt == (int(NOW) if dated else last_attempt)
    assert (
        replace(new, state=old.state, no_tries=old.no_tries, last_attempt=old.last_attempt) == old
    )


@pytest.mark.parametrize(("condition", "event"), UNCHANGED)
@pytest.mark.parametrize("now", [0.0, NOW, 1e10])
def test_machine_other_pairs_change_nothing(condition: Condition, event: Event, now: float) -> None:
    old = node(condition, no_tries=3 if condition is DISABLED else 2)
    assert apply(old, event, now) is old


def test_machine_missing_cell_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    table = {pair: made for pair, made in TRANSITIONS.items() if pair != (UP, Event.SET_UP)}
    monkeypatch.setattr(machine_module, "TRANSITIONS", table)
    with pytest.raises(KeyError):
        apply(node(UP), Event.SET_UP, NOW)


def test_machine_unknown_event_raises() -> None:
    with pytest.raises(KeyError):
        apply(node(UP), "send failed", NOW)  # type: ignore[arg-type]  # that is the point


def test_machine_table_is_immutable() -> None:
    with pytest.raises(TypeError):
        TRANSITIONS[UP, Event.SET_UP] = TRANSITIONS[DOWN, Event.SET_DOWN]  # type: ignore[index]


def test_node_allowed_no_failure_is_disabled_by_the_first() -> None:
    strict = replace(node(UP), failed_attempts=0)
    assert apply(strict, Event.SEND_FAILED, NOW).condition is DISABLED


def test_node_accepting_without_reading_becomes_disabled() -> None:
    seen = node(UP)
    conditions = []
    for _ in range(3):
        seen = apply(seen, Event.SEND_FAILED, NOW)
        conditions.append(seen.condition)
        seen = apply(seen, Event.PROBE_SUCCEEDED, NOW)
    assert conditions == [PROBING, PROBING, DISABLED]
    assert seen.condition is DISABLED


def test_dead_node_goes_up_probing_disabled_up() -> None:
    story = [
        (Event.SEND_FAILED, 100.0, PROBING),
        (Event.PROBE_FAILED, 101.0, PROBING),
        (Event.PROBE_FAILED, 102.0, DISABLED),
        (Event.DURATION_ELAPSED, 131.9, DISABLED),
        (Event.DURATION_ELAPSED, 132.0, UP),
    ]
    seen = node(UP, last_attempt=0)
    for event, now, condition in story:
        seen = apply(seen, event, now)
        assert seen.condition is condition
    assert seen.no_tries == 0


def test_node_clock_set_back_stays_not_disabled() -> None:
    seen = node(DISABLED, no_tries=3, last_attempt=int(NOW) + 3600)
    assert next_look(seen, NOW, 1.0) == NOW + seen.duration
    assert apply(seen, Event.DURATION_ELAPSED, NOW + seen.duration).condition is UP


# -- whatever happens --------------------------------------------------------------------------

nodes = st.builds(
    Node,
    id=st.integers(1, 9),
    cluster_id=st.just(1),
    machine_id=st.integers(1, 9),
    url=st.just("bin:10.0.0.1:5555"),
    protocol=st.just("bin"),
    host=st.just("10.0.0.1"),
    port=st.just(5555),
    state=st.sampled_from(State),
    last_attempt=st.integers(0, 2_000),
    failed_attempts=st.integers(0, 5),
    no_tries=st.integers(0, 8),
    duration=st.integers(0, 60),
)
steps = st.lists(st.tuples(st.sampled_from(Event), st.floats(0, 50)), max_size=40)


@given(nodes, steps)
def test_machine_any_history_keeps_rules(seen: Node, history: list[tuple[Event, float]]) -> None:
    now = 1_000.0
    for event, passed in history:
        now += passed
        before, seen = seen, apply(seen, event, now)
        assert seen.no_tries >= 0
        assert seen.no_tries <= before.no_tries + 1
        exhausted = seen.no_tries >= seen.failed_attempts
        assert (seen.condition is DISABLED) == (seen.state is State.PROBING and exhausted)
        if before.condition is DOWN:
            assert seen.condition is (UP if event is Event.SET_UP else DOWN)
        if before.condition is DISABLED and seen.condition is UP:
            waited = now >= before.last_attempt + before.duration
            reached = event in {Event.SET_UP, Event.CONFIRMED}
            assert reached or waited or before.last_attempt > now
        if seen.no_tries > before.no_tries:
            assert seen.last_attempt == int(now)
        else:
            assert seen.last_attempt == before.last_attempt


@given(nodes, st.sampled_from([Event.SET_DOWN, Event.SET_UP]), st.floats(0, 3_000))
def test_machine_repeated_command_changes_nothing(seen: Node, command: Event, now: float) -> None:
    once = apply(seen, command, now)
    assert apply(once, command, now + 1) == once


@given(nodes, st.sampled_from(Event), st.floats(0, 3_000))
def test_node_passed_in_is_never_changed(seen: Node, event: Event, now: float) -> None:
    copy = replace(seen)
    apply(seen, event, now)
    assert seen == copy
