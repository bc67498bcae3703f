"""Division of senders among workers: a table of senders that each worker takes and gives."""

from __future__ import annotations

import pytest

from clusterer.delivery import shares


@pytest.mark.parametrize(
    ("mine", "others", "unclaimed", "room"),
    [
        (0, [], 1000, 1000),
        (500, [], 500, 500),
        (0, [0], 200, 112),
        (0, [100], 1, 57),
        (100, [0], 1, 0),
        (100, [100], 10, 18),
        (3, [3], 1, 3),
    ],
    ids=["alone", "alone with many", "both begin", "joining", "over", "even", "few"],
)
def test_share_of_unclaimed_senders(
    mine: int, others: list[int], unclaimed: int, room: int
) -> None:
    assert shares.room(mine, others, unclaimed) == room


@pytest.mark.parametrize(
    ("mine", "others", "surplus"),
    [(200, [0], 100), (100, [100], 0), (110, [90], 0), (10, [0], 5), (6, [0], 0), (200, [], 0)],
)
def test_surplus_is_given_only_when_it_is_clear(mine: int, others: list[int], surplus: int) -> None:
    assert shares.surplus(mine, others) == surplus
    assert shares.surplus(mine - surplus, [others[0] + surplus] if others else []) == 0


def test_surplus_while_giving_goes_on_to_the_share() -> None:
    assert shares.surplus(110, [90]) == 0
    assert shares.surplus(110, [90], giving=True) == 10
    assert shares.surplus(90, [110], giving=True) == 0


@pytest.mark.parametrize(
    ("mine", "others", "lacks"),
    [(0, [200], True), (0, [6], False), (0, [], False), (100, [100], False), (0, [20, 20], True)],
)
def test_share_worker_waits_only_for_others_that_give(
    mine: int, others: list[int], lacks: bool
) -> None:
    assert shares.lacks(mine, others) is lacks


def test_senders_are_given_a_few_at_a_time() -> None:
    assert [shares.at_once(n) for n in (1, 16, 100, 800)] == [1, 16, 16, 100]
