"""Times of last packets: which are written to Redis at once, and which wait."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusterer.listener.last_seen_buffer import MAX_HOLD_S, LastSeenBuffer, hold_s
from clusterer.store.watches import Watch

WATCH = Watch(1, "ratelimit", "ratelimit", 1, 10_000)


def take(buffer: LastSeenBuffer, now: float, **heard: float) -> dict[int, float]:
    """Take and write what is due for `WATCH`; ``last_seen`` is m2=..., m3=..."""
    due = buffer.take({WATCH: {int(name[1:]): at for name, at in heard.items()}}, now)
    buffer.written(due)
    return due[WATCH]


@pytest.mark.parametrize(
    ("timeout_ms", "hold"), [(0, MAX_HOLD_S), (10_000, 2.0), (1_000, 0.25), (500, 0.0), (1, 0.0)]
)
def test_last_seen_buffer_holds_no_clock_for_half_its_timeout(timeout_ms: int, hold: float) -> None:
    assert hold_s(Watch(1, "ul", "ul", 1, timeout_ms)) == hold


def test_last_seen_buffer_first_packet_is_written_at_once() -> None:
    assert take(LastSeenBuffer(), 10.0, m2=9.9) == {2: 9.9}


def test_last_seen_buffer_active_node_written_at_intervals() -> None:
    buffer = LastSeenBuffer()
    take(buffer, 10.0, m2=10.0)
    assert take(buffer, 10.5, m2=10.4) == {}
    assert take(buffer, 11.9, m2=11.8) == {}
    assert take(buffer, 12.0) == {2: 11.8}, "held back, and not heard since"
    assert take(buffer, 12.2) == {}


def test_last_seen_buffer_one_due_takes_all_along() -> None:
    buffer = LastSeenBuffer()
    take(buffer, 10.0, m2=10.0)
    assert take(buffer, 10.2, m2=10.1) == {}
    assert take(buffer, 10.4, m3=10.3) == {2: 10.1, 3: 10.3}


def test_last_seen_buffer_failed_write_is_written_next() -> None:
    buffer = LastSeenBuffer()
    take(buffer, 10.0, m2=10.0)
    take(buffer, 10.2, m2=10.2)
    assert buffer.forget() == {WATCH: {2: 10.2}}
    assert take(buffer, 10.3, m2=10.2) == {2: 10.2}


def test_last_seen_buffer_removed_node_is_not_written() -> None:
    buffer = LastSeenBuffer()
    take(buffer, 10.0, m2=10.0, m3=10.0)
    take(buffer, 10.2, m2=10.1, m3=10.1)
    buffer.leave(WATCH, frozenset({2}))
    assert take(buffer, 12.2) == {3: 10.1}


STEP = st.tuples(
    st.sampled_from((0.24, 0.3, 1.9)), st.dictionaries(st.integers(2, 5), st.floats(0, 1))
)
"""Seconds between two flushes, and when in between the listener received packets of nodes."""


@pytest.mark.parametrize("timeout_ms", [1, 300, 700, 1_500, 4_000, 10_000])
@given(steps=st.lists(STEP, max_size=60))
def test_last_seen_buffer_clock_held_back_mutes_no_node(
    timeout_ms: int, steps: list[tuple[float, dict[int, float]]]
) -> None:
    """A flush names the time until which the instance listened: no clock may be late by then."""
    watch = Watch(1, "ul", "ul", 1, timeout_ms)
    buffer, now = LastSeenBuffer(), 100.0
    in_redis: dict[int, float] = {}
    true: dict[int, float] = {}
    for pause_s, fractions in steps:
        heard = {node: now + pause_s * fraction for node, fraction in fractions.items()}
        now += pause_s
        true |= heard
        due = buffer.take({watch: heard}, now)
        buffer.written(due)
        in_redis |= due[watch]
        for node, at in true.items():
            if now - at <= timeout_ms / 1000:
                assert now - in_redis[node] <= timeout_ms / 1000
