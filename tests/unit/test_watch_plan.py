"""When the module timeout job looks at each registration next."""

from __future__ import annotations

import pytest

from clusterer.store.watches import LISTED_MS, Watch, WatchPlan

ONE, TWO = (Watch(receiver, "m", "m", 1, 10_000) for receiver in (1, 2))
NOW = 1_000_000


@pytest.fixture
def plan() -> WatchPlan:
    """A plan whose registrations were looked at just now: 1 is due in 5 s, 2 in 8 s."""
    made = WatchPlan()
    made.replace([ONE, TWO], b"4", NOW)
    assert made.due(NOW) == [ONE, TWO]
    made.looked(ONE, NOW + 5000)
    made.looked(TWO, NOW + 8000)
    return made


def test_watch_plan_has_registrations_that_are_due_only(plan: WatchPlan) -> None:
    assert plan.due(NOW + 4999) == []
    assert plan.due(NOW + 5000) == [ONE]
    assert plan.due(NOW + 9000) == [ONE, TWO]


@pytest.mark.parametrize(
    ("counter", "after_ms", "current"),
    [
        (b"4", 0, True),
        (b"4", LISTED_MS - 1, True),
        (b"4", LISTED_MS, False),
        (b"5", 0, False),
        (None, 0, False),
        (b"4", -1, False),
    ],
)
def test_watch_plan_is_current_for_a_time(
    plan: WatchPlan, counter: bytes | None, after_ms: int, current: bool
) -> None:
    assert plan.is_current(counter, NOW + after_ms) is current


def test_watch_plan_looks_at_new_registrations_at_once(plan: WatchPlan) -> None:
    new = Watch(3, "m", "m", 1, 10_000)
    plan.replace([TWO, new], b"5", NOW + 100)
    assert plan.due(NOW + 100) == [new]
    assert plan.due(NOW + 60_000) == [TWO, new]


def test_watch_plan_looks_at_all_if_the_clock_went_back(plan: WatchPlan) -> None:
    plan.due(NOW + 4000)
    plan.replace([ONE, TWO], b"4", NOW + 3000)
    assert plan.due(NOW + 3000) == [ONE, TWO]
