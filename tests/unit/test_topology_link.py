"""The state machine of a link: each cell of its table, and what time does."""

from __future__ import annotations

import pytest

from clusterer.topology.link import (
    TRANSITIONS,
    Event,
    Limits,
    Link,
    LinkState,
    Phase,
    apply,
    due,
)

LIMITS = Limits(ping_interval=4.0, ping_timeout=1.0, node_timeout=60.0)
TIMED = {Event.PING_DUE, Event.UNANSWERED, Event.RETRIES_USED}
NEVER = float("-inf")

R, P, U, D = Phase
TABLE = {
    # event: the phase that follows each phase; "!" is a ping
    Event.PINGED: {R: (R, ""), P: (P, ""), U: (U, ""), D: (P, "!")},
    Event.ANSWERED: {R: (R, ""), P: (U, ""), U: (U, ""), D: (U, "")},
    Event.ANSWERED_LATE: {R: (R, ""), P: (U, ""), U: (U, ""), D: (D, "")},
    Event.SEND_FAILED: {R: (R, ""), P: (P, ""), U: (R, ""), D: (D, "")},
    Event.REPORTED_UP: {R: (R, ""), P: (P, ""), U: (U, ""), D: (R, "")},
    Event.REPORTED_DOWN: {R: (R, ""), P: (P, ""), U: (R, ""), D: (D, "")},
    Event.UNKNOWN_THERE: {R: (R, ""), P: (R, ""), U: (R, ""), D: (R, "")},
    Event.REPLACED: {R: (R, ""), P: (R, ""), U: (R, ""), D: (R, "")},
    Event.PING_DUE: {R: (P, "!"), U: (U, "!"), D: (P, "!")},
    Event.UNANSWERED: {P: (P, "!"), U: (P, "!")},
    Event.RETRIES_USED: {P: (D, ""), U: (D, "")},
}


def test_link_table_of_the_test_has_every_cell() -> None:
    assert {(phase, event) for event, row in TABLE.items() for phase in row} == set(TRANSITIONS)
    assert all(set(row) == set(Phase) for event, row in TABLE.items() if event not in TIMED)


@pytest.mark.parametrize(
    ("event", "phase"), [(event, phase) for event, row in TABLE.items() for phase in row]
)
def test_link_event_leads_to_the_phase_of_the_table(event: Event, phase: Phase) -> None:
    expected, ping = TABLE[event][phase]
    before = Link(phase, since=1.0, pinged=2.0, pings=5, retries=2)
    after = apply(before, event, 10.0)
    assert after.phase is expected
    assert after.pings == (6 if ping else 5)
    assert after.pinged == (10.0 if ping else 2.0)
    assert after.since == (1.0 if after.state is before.state else 10.0)


def test_link_event_that_cannot_occur_raises_key_error() -> None:
    with pytest.raises(KeyError):
        apply(Link(Phase.DOWN, 0.0), Event.UNANSWERED, 1.0)


@pytest.mark.parametrize(
    ("phase", "state"),
    [(R, LinkState.PROBE), (P, LinkState.PROBE), (U, LinkState.UP), (D, LinkState.DOWN)],
)
def test_link_state_is_that_of_clusterer_list(phase: Phase, state: LinkState) -> None:
    assert Link(phase, 0.0).state is state


def what_is_due(link: Link, now: float, **times: float) -> Event | None:
    sent, heard = times.get("sent", NEVER), times.get("heard", NEVER)
    return due(link, now, LIMITS, 3, sent, heard)


def test_link_restarting_is_pinged_at_once() -> None:
    assert what_is_due(Link(R, 0.0), 0.0) is Event.PING_DUE


@pytest.mark.parametrize("phase", [P, U])
@pytest.mark.parametrize(
    ("now", "retries", "event"),
    [
        (0.9, 0, None),
        (1.0, 0, Event.UNANSWERED),
        (1.0, 2, Event.UNANSWERED),
        (1.0, 3, Event.RETRIES_USED),
        (0.9, 3, None),
    ],
)
def test_link_ping_is_repeated_as_often_as_the_row_says(
    phase: Phase, now: float, retries: int, event: Event | None
) -> None:
    assert what_is_due(Link(phase, 0.0, pinged=0.0, retries=retries), now) is event


def test_link_retries_are_counted_from_the_first_unanswered_ping() -> None:
    link, counts = Link(U, 0.0, pinged=0.0), []
    for event in (Event.UNANSWERED, Event.UNANSWERED, Event.UNANSWERED, Event.RETRIES_USED):
        link = apply(link, event, 1.0)
        counts.append((link.phase, link.retries))
    assert counts == [(P, 1), (P, 2), (P, 3), (D, 0)]


@pytest.mark.parametrize("phase", [P, U])
@pytest.mark.parametrize("retries", [0, -1])
def test_link_without_retries_is_down_after_one_ping(phase: Phase, retries: int) -> None:
    link = Link(phase, 0.0, pinged=0.0, pings=1)
    assert due(link, 1.0, LIMITS, retries, 0.0, NEVER) is Event.RETRIES_USED


@pytest.mark.parametrize(("now", "event"), [(59.9, None), (60.0, Event.PING_DUE)])
def test_link_down_is_pinged_after_node_timeout(now: float, event: Event | None) -> None:
    assert what_is_due(Link(D, 5.0, pinged=0.0), now) is event


@pytest.mark.parametrize(
    ("now", "sent", "heard", "event"),
    [
        (3.9, 0.0, 0.0, None),
        (4.0, 0.0, 0.0, Event.PING_DUE),
        (4.0, 0.0, 3.0, Event.PING_DUE),
        (4.0, 3.0, 0.0, Event.PING_DUE),
        (4.0, 3.0, 3.0, None),
    ],
)
def test_link_up_is_pinged_if_one_direction_is_silent(
    now: float, sent: float, heard: float, event: Event | None
) -> None:
    assert what_is_due(Link(U, 0.0, pinged=0.0), now, sent=sent, heard=heard) is event


@pytest.mark.parametrize(
    ("now", "heard", "event"),
    [(10.9, 9.0, None), (11.0, 9.0, Event.UNANSWERED), (11.0, 10.0, None)],
)
def test_link_up_fails_if_nothing_comes_after_a_ping(
    now: float, heard: float, event: Event | None
) -> None:
    link = Link(U, 0.0, pinged=10.0, pings=1)
    assert what_is_due(link, now, sent=10.0, heard=heard) is event
