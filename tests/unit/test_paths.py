"""Paths: the record of one sender, its state table, and when it closes the gate."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusterer.membership import Condition, Event, State
from clusterer.membership.paths import (
    GRACE_MS,
    PATH_TRANSITIONS,
    SPREAD_MS,
    Path,
    as_seen,
    due_ms,
    gate,
    is_void,
    observed,
)
from tests.support.cluster import node

NODE = replace(node(2), epoch=7, duration=5, failed_attempts=3)
NOW = 1_000_000
UNTIL = NOW + 5000 + GRACE_MS
UP, PROBING, DISABLED = Condition.UP, Condition.PROBING, Condition.DISABLED
EVENTS = (
    Event.SEND_FAILED,
    Event.SUSPECTED,
    Event.PROBE_FAILED,
    Event.PROBE_SUCCEEDED,
    Event.DURATION_ELAPSED,
)


def failed(times: int) -> Path:
    """Return the record after so many failed attempts."""
    path: Path | None = None
    for _ in range(times):
        path = observed(NODE, path, Event.SEND_FAILED, NOW, "Connection refused")
    assert path is not None
    return path


def record(condition: Condition, no_tries: int) -> Path:
    state = State.UP if condition is UP else State.PROBING
    made = Path(state, no_tries, NOW - 1000, UNTIL - 1000, NODE.epoch, "before")
    assert made.condition(NODE) is condition
    return made


# -- text ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("times", [1, 3])
def test_path_text_is_parsed_to_same_record(times: int) -> None:
    path = failed(times)
    assert str(path) == f"2 {times} {NOW} {UNTIL} 7 Connection refused"
    assert Path.parse(str(path)) == path


@given(
    st.builds(
        Path,
        state=st.sampled_from([State.UP, State.PROBING]),
        no_tries=st.integers(0, 2**31),
        last_ms=st.integers(0, 2**52),
        until_ms=st.integers(0, 2**52),
        epoch=st.integers(0, 2**52),
        reason=st.text(),
    )
)
def test_path_text_of_any_record_is_parsed_back(path: Path) -> None:
    assert Path.parse(str(path)) == path


@given(st.text(alphabet="0123 -+_x\n\u0663", max_size=24) | st.text())
def test_path_text_is_one_for_each_record(text: str) -> None:
    try:
        path = Path.parse(text)
    except ValueError:
        return
    assert str(path) == text


@pytest.mark.parametrize(
    "text", ["", "2", "0 1 2 3 4", "3 1 2 3 4", "2 1 2 3", "2 -1 2 3 4", "2 1 2 3 4 ", "2 01 2 3 4"]
)
def test_path_text_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not 'state no_tries last until epoch reason'"):
        Path.parse(text)


# -- the state table -------------------------------------------------------------------------------

# condition and failed attempts before, event, condition and attempts after (None: no record),
# whether the last attempt becomes now
ROWS = [
    *((UP, 1, event, PROBING, 2, True) for event in (Event.SEND_FAILED, Event.SUSPECTED)),
    (UP, 2, Event.SEND_FAILED, DISABLED, 3, True),
    (UP, 2, Event.PROBE_FAILED, UP, 2, False),
    (UP, 2, Event.PROBE_SUCCEEDED, UP, 2, False),
    (UP, 2, Event.DURATION_ELAPSED, None, None, False),
    *(
        (PROBING, 1, event, PROBING, 2, True)
        for event in (Event.SEND_FAILED, Event.SUSPECTED, Event.PROBE_FAILED)
    ),
    (PROBING, 2, Event.PROBE_FAILED, DISABLED, 3, True),
    (PROBING, 2, Event.PROBE_SUCCEEDED, UP, 2, False),
    (PROBING, 2, Event.DURATION_ELAPSED, PROBING, 2, False),
    (DISABLED, 3, Event.SEND_FAILED, DISABLED, 3, False),
    (DISABLED, 3, Event.SUSPECTED, DISABLED, 3, False),
    (DISABLED, 3, Event.PROBE_FAILED, DISABLED, 3, True),
    (DISABLED, 3, Event.PROBE_SUCCEEDED, None, None, False),
    (DISABLED, 3, Event.DURATION_ELAPSED, DISABLED, 3, False),
]


def test_path_table_has_every_pair_and_test_every_row() -> None:
    pairs = set(product((UP, PROBING, DISABLED), EVENTS))
    assert set(PATH_TRANSITIONS) == pairs == {(row[0], row[2]) for row in ROWS}


@pytest.mark.parametrize(("before", "tries", "event", "after", "tries_after", "dated"), ROWS)
def test_path_row_gives_its_cell(
    *,
    before: Condition,
    tries: int,
    event: Event,
    after: Condition | None,
    tries_after: int | None,
    dated: bool,
) -> None:
    old = record(before, tries)
    new = observed(NODE, old, event, NOW, "now")
    if after is None:
        assert new is None
        return
    assert new is not None
    assert (new.condition(NODE), new.no_tries) == (after, tries_after)
    assert new.last_ms == (NOW if dated else old.last_ms)
    changed = replace(new, until_ms=old.until_ms, reason=old.reason) != old
    assert (new.until_ms, new.reason) == ((UNTIL, "now") if changed else (UNTIL - 1000, "before"))


@pytest.mark.parametrize("event", EVENTS)
def test_path_without_record_gets_one_by_failure_only(event: Event) -> None:
    for before in (None, replace(failed(3), epoch=6)):
        after = observed(NODE, before, event, NOW, "why")
        if event in {Event.SEND_FAILED, Event.SUSPECTED}:
            assert after == Path(State.PROBING, 1, NOW, UNTIL, NODE.epoch, "why")
        else:
            assert after is None


def test_path_event_of_operator_is_no_event_of_path() -> None:
    for event in (Event.SET_UP, Event.SET_DOWN, Event.CONFIRMED):
        with pytest.raises(KeyError):
            observed(NODE, failed(1), event, NOW)


def test_path_keeps_reason_where_none_is_given() -> None:
    again = observed(NODE, failed(1), Event.PROBE_FAILED, NOW + 1)
    assert again is not None
    assert again.reason == "Connection refused"
    spaced = observed(NODE, None, Event.SEND_FAILED, NOW, " a \n b ")
    assert spaced is not None
    assert spaced.reason == "a b"


def test_path_of_node_that_allows_no_failure_is_disabled() -> None:
    strict = replace(NODE, failed_attempts=1)
    path = observed(strict, None, Event.SEND_FAILED, NOW)
    assert path is not None
    assert path.condition(strict) is DISABLED


# -- when it is due --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (failed(1), NOW + 1500),
        (failed(3), NOW + 5000),
        (replace(failed(2), state=State.UP), NOW + 5000),
    ],
)
def test_path_is_due_by_its_condition(path: Path, expected: int) -> None:
    assert due_ms(NODE, path, 1.5) == expected


@pytest.mark.parametrize(("duration", "longest"), [(5, 500), (60, SPREAD_MS)])
def test_path_disabled_is_due_later_by_its_share(duration: int, longest: int) -> None:
    seen = replace(NODE, duration=duration)
    assert due_ms(seen, failed(3), 1.0, spread=1.0) == NOW + duration * 1000 + longest
    assert due_ms(seen, failed(1), 1.0, spread=1.0) == NOW + 1000


# -- the gate --------------------------------------------------------------------------------------


def test_path_failed_closes_gate_until_void() -> None:
    path = failed(1)
    assert path.condition(NODE) is PROBING
    assert failed(3).condition(NODE) is DISABLED
    assert gate(NODE, None, NOW)
    assert not gate(NODE, path, NOW)
    assert not gate(NODE, path, path.until_ms - 1)
    assert gate(NODE, path, path.until_ms)
    assert gate(replace(NODE, epoch=8), path, NOW)
    frozen = replace(NODE, state=State.PROBING)
    assert not gate(frozen, path, path.until_ms)
    assert is_void(path, None, NOW)


def test_path_from_before_clock_was_set_back_is_void() -> None:
    path = failed(1)
    assert not gate(NODE, path, NOW - 1000)
    assert gate(NODE, path, NOW - 1001)
    assert is_void(path, NODE, NOW - 3_600_000)


@pytest.mark.parametrize("state", State)
def test_gate_without_record_depends_on_operator_only(state: State) -> None:
    assert gate(replace(NODE, state=state), None, NOW) is (state is not State.DOWN)


@pytest.mark.parametrize("no_tries", [0, 3])
def test_view_of_sender_is_record_else_verdict(no_tries: int) -> None:
    seen = replace(NODE, state=State.PROBING, no_tries=no_tries)
    assert as_seen(seen, None, NOW).condition is seen.condition
    assert as_seen(seen, replace(failed(1), state=State.UP), NOW).condition is seen.condition
    assert as_seen(seen, replace(failed(1), epoch=6), NOW).condition is seen.condition
    assert as_seen(seen, failed(1), NOW).condition is PROBING
    assert as_seen(seen, failed(3), NOW).condition is DISABLED
    assert as_seen(replace(seen, state=State.DOWN), failed(1), NOW).condition is Condition.DOWN


@pytest.mark.parametrize("times", [1, 3])
def test_node_as_sender_sees_it_has_state_of_path(times: int) -> None:
    path = failed(times)
    assert as_seen(NODE, path, NOW).condition is path.condition(NODE)
    assert as_seen(NODE, None, NOW) == NODE
    down = replace(NODE, state=State.DOWN)
    assert as_seen(down, path, NOW) == down
    assert as_seen(NODE, path, path.until_ms) == NODE
    other = replace(NODE, protocol="udp")
    assert as_seen(other, path, NOW) == other
