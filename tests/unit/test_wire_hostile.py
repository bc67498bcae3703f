"""Valid marker, hostile rest: no exception but ours, no growth of memory. The million of cases is
in scripts/bench (``decoder_fuzz``); here are some, others every day.
"""

from __future__ import annotations

import datetime as dt

import pytest

from tests.support.hostile import attack, resident_mb, streams

CASES = 20_000


@pytest.mark.parametrize("split", [0, 1, 7, 1_000])
def test_feed_hostile_streams_raise_wire_error_or_none(split: int) -> None:
    seed = dt.datetime.now(dt.UTC).date().toordinal() * 10 + split
    print(f"seed {seed}")
    packets = sum(attack(data, split) for data in streams(seed, CASES // (4 if split == 1 else 1)))
    assert packets > 1_000, "some of them are packets all the same"


def test_feed_hostile_streams_leave_no_memory() -> None:
    for data in streams(1, 5_000):
        attack(data, 0)
    before = resident_mb()
    for data in streams(2, 20_000):
        attack(data, 64)
    assert resident_mb() - before < 8
