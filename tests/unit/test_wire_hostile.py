"""Valid marker, hostile rest: no exception but ours, no growth of memory. The million of cases is
in scripts/bench (``decoder_fuzz``); hypothesis chooses these and keeps a failure in its database.
"""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.hostile import MAKERS, attack, resident_mb, streams


@given(
    rng=st.randoms(use_true_random=False),
    maker=st.sampled_from(sorted(MAKERS)),
    split=st.sampled_from([0, 1, 7, 1_000]),
)
@settings(max_examples=1_000)
def test_feed_hostile_stream_raises_wire_error_or_none(
    rng: random.Random, maker: str, split: int
) -> None:
    attack(MAKERS[maker](rng), split)


def test_feed_hostile_streams_leave_no_memory() -> None:
    for data in streams(1, 5_000):
        attack(data, 0)
    before = resident_mb()
    packets = sum(attack(data, 64) for data in streams(2, 20_000))
    assert resident_mb() - before < 8
    assert packets > 1_000, "some of them are packets all the same"
