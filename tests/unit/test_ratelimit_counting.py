"""Counters of pipes: intervals, remote counters, lifetimes, bounds."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusterer.errors import InvalidArgument
from clusterer.modules.ratelimit import Algorithm, Limits, PipeView, RateLimit
from clusterer.payloads.ratelimit import PipeRecord, build_packets
from tests.support.fake_cluster import FakeClock, FakeCluster

NONE, TAILDROP, RED = Algorithm.NONE, Algorithm.TAILDROP, Algorithm.RED


class Rig:
    """A started RateLimit of node 1 on a fake cluster, with a clock that the test sets."""

    def __init__(self, **options: Any) -> None:
        self.clock = FakeClock()
        self.cluster = FakeCluster()
        self.limiter = RateLimit(self.cluster, accept_pipes_from=1, clock=self.clock, **options)
        self.limiter.start()

    def passed(self, times: int, limit: int = 1, algorithm: int = TAILDROP) -> int:
        return sum(self.limiter.check("calls", limit, algorithm) for _ in range(times))

    def receive(self, machine_id: int, *records: PipeRecord) -> None:
        for packet in build_packets(
            lambda: FakeCluster(machine_id).packet("ratelimit", 0), records
        ):
            self.cluster.deliver(packet)

    def hear(self, machine_id: int, counter: int, name: bytes = b"calls") -> None:
        self.receive(machine_id, PipeRecord(name, 1, 1, counter))

    @property
    def calls(self) -> PipeView:
        return self.limiter.pipes()["calls"]


@pytest.fixture
def rig() -> Rig:
    return Rig()


# -- own counters ------------------------------------------------------------------------------


def test_taildrop_above_limit_times_interval_refuses(rig: Rig) -> None:
    assert [rig.passed(10), rig.passed(1)] == [10, 0]


def test_taildrop_next_interval_passes_again(rig: Rig) -> None:
    rig.passed(15)
    rig.clock.advance(9.999)
    assert rig.passed(1) == 0
    rig.clock.advance(0.001)
    assert rig.passed(11) == 10


def test_check_refused_counts(rig: Rig) -> None:
    rig.passed(25)
    assert rig.calls.counter == 25


def test_interval_end_moves_counter_to_last_counter(rig: Rig) -> None:
    rig.passed(7)
    assert (rig.calls.counter, rig.calls.last_counter) == (7, 0)
    rig.clock.advance(10)
    assert (rig.calls.counter, rig.calls.last_counter) == (0, 7)
    rig.passed(2)
    assert (rig.calls.counter, rig.calls.last_counter) == (2, 7)


def test_interval_without_checks_last_counter_is_0(rig: Rig) -> None:
    rig.passed(7)
    rig.clock.advance(20)
    assert rig.calls.last_counter == 0


def test_intervals_noticed_late_keep_their_times(rig: Rig) -> None:
    rig.passed(1)
    rig.clock.advance(34)
    rig.passed(4)
    rig.clock.advance(5.9)
    assert rig.calls.counter == 4
    rig.clock.advance(0.1)
    assert (rig.calls.counter, rig.calls.last_counter) == (0, 4)


@given(st.sampled_from([0.1, 0.3, 0.7, 10.0]), st.lists(st.integers(0, 30), max_size=30))
def test_interval_end_despite_rounding_lies_ahead(interval: float, steps: list[int]) -> None:
    clock = FakeClock()
    limiter = RateLimit(FakeCluster(), timer_interval=interval, clock=clock)
    for step in steps:
        clock.advance(step * interval)
        limiter.check("calls", 1)
        assert limiter.pipes()["calls"].counter >= 1


def test_interval_setting_applied() -> None:
    rig = Rig(timer_interval=2)
    assert rig.passed(10, limit=3) == 6
    rig.clock.advance(2)
    assert rig.calls.last_counter == 10


def test_pipes_two_names_count_separately(rig: Rig) -> None:
    rig.passed(20)
    assert rig.limiter.check("others", 1)


def test_check_latest_limit_and_algorithm_apply(rig: Rig) -> None:
    assert rig.passed(11, limit=1) == 10
    assert rig.passed(1, limit=2) == 1
    assert (rig.calls.limit, rig.calls.algorithm) == (2, TAILDROP)
    assert rig.passed(1, limit=1, algorithm=NONE) == 1
    assert (rig.calls.limit, rig.calls.algorithm, rig.calls.counter) == (1, NONE, 13)


def test_limit_0_passes_nothing(rig: Rig) -> None:
    assert rig.passed(5, limit=0) == 0
    assert rig.passed(5, limit=0, algorithm=RED) == 0


# -- algorithms --------------------------------------------------------------------------------


def test_none_passes_every_check(rig: Rig) -> None:
    assert rig.passed(100, algorithm=NONE) == 100


def test_red_without_overload_passes_all(rig: Rig) -> None:
    assert rig.passed(100, algorithm=RED) == 100
    rig.clock.advance(20)
    assert rig.passed(19, algorithm=RED) == 19
    rig.clock.advance(10)
    # 19 checks at 10 allowed are a load of 1.
    assert rig.passed(50, algorithm=RED) == 50


def test_red_after_overload_passes_one_in_load(rig: Rig) -> None:
    rig.passed(39, algorithm=RED)
    rig.clock.advance(10)
    assert [rig.limiter.check("calls", 1, RED) for _ in range(6)] == [0, 0, 1, 0, 0, 1]


def test_red_remote_counters_in_total_not_in_load(rig: Rig) -> None:
    rig.passed(20, algorithm=RED)
    rig.clock.advance(10)
    rig.hear(2, 1_001)
    assert [rig.limiter.check("calls", 1, RED) for _ in range(4)] == [1, 0, 1, 0]


@pytest.mark.parametrize("algorithm", [-1, 6, "TAILDROP", None])
def test_check_unknown_algorithm_raises(rig: Rig, algorithm: Any) -> None:
    with pytest.raises(InvalidArgument, match="unknown algorithm"):
        rig.limiter.check("calls", 1, algorithm)


@pytest.mark.parametrize("limit", [-1, 2**31, 1.5, "100", None, True])
def test_check_limit_beyond_wire_range_raises(rig: Rig, limit: Any) -> None:
    with pytest.raises(InvalidArgument, match="limit of pipe 'calls' must be an integer from 0"):
        rig.limiter.check("calls", limit)


@pytest.mark.parametrize(
    "name", ["", b"calls", 5, None, "\ud800", "\udcc3\udca9", "x" * 1_025, "é" * 513]
)
def test_check_invalid_name_raises(rig: Rig, name: Any) -> None:
    with pytest.raises(InvalidArgument, match="name"):
        rig.limiter.check(name, 1)
    assert rig.limiter.pipes() == {}


def test_check_longest_name_accepted(rig: Rig) -> None:
    assert rig.limiter.check("é" * 512, 1)


# -- remote counters ---------------------------------------------------------------------------


def test_remote_counters_of_all_nodes_summed(rig: Rig) -> None:
    rig.hear(2, 3)
    rig.hear(3, 4)
    assert rig.passed(10) == 3
    assert dict(rig.calls.remote) == {2: 3, 3: 4}


def test_remote_counter_newer_replaces_older(rig: Rig) -> None:
    rig.passed(1)
    rig.hear(2, 9)
    assert rig.passed(1) == 0
    rig.hear(2, 5)
    assert rig.passed(10) == 3
    assert dict(rig.calls.remote) == {2: 5}


def test_remote_counter_after_10_s_counts_as_0(rig: Rig) -> None:
    rig.clock.advance(5)
    rig.hear(2, 10)
    rig.clock.advance(9.9)
    assert rig.passed(1) == 0
    rig.clock.advance(0.1)
    assert rig.calls.remote == {}
    assert rig.passed(20) == 9  # one check of this interval was refused above


def test_remote_counters_of_nodes_expire_separately(rig: Rig) -> None:
    rig.hear(2, 4)
    rig.clock.advance(6)
    rig.hear(3, 3)
    rig.clock.advance(4.5)
    assert rig.passed(20) == 7
    assert dict(rig.calls.remote) == {3: 3}
    rig.clock.advance(5.4)
    rig.passed(1)
    assert dict(rig.calls.remote) == {3: 3}
    rig.clock.advance(0.2)
    assert rig.calls.remote == {}


def test_remote_counter_refreshed_stays(rig: Rig) -> None:
    for _ in range(30):
        rig.hear(2, 10)
        rig.clock.advance(1)
    assert rig.passed(1) == 0


def test_remote_lifetime_setting_applied() -> None:
    rig = Rig(limits=Limits(remote_lifetime=2))
    rig.hear(2, 10)
    rig.clock.advance(2)
    assert rig.passed(1) == 1


def test_remote_counter_at_interval_end_stays(rig: Rig) -> None:
    rig.clock.advance(9)
    rig.hear(2, 10)
    rig.clock.advance(1)
    assert rig.passed(1) == 0


# -- received pipes ----------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", list(Algorithm))
def test_received_pipe_any_algorithm_kept(rig: Rig, algorithm: Algorithm) -> None:
    rig.receive(2, PipeRecord(b"calls", algorithm, 77, 5))
    assert rig.calls == PipeView("calls", algorithm, 77, 0, 0, {2: 5}, local=False)


def test_received_pipe_used_becomes_own_with_counters(rig: Rig) -> None:
    rig.receive(2, PipeRecord(b"calls", Algorithm.HISTORY, 77, 5))
    assert rig.passed(10) == 5
    assert (rig.calls.local, rig.calls.algorithm, rig.calls.limit) == (True, TAILDROP, 1)


def test_own_pipe_receives_counters_but_no_limit(rig: Rig) -> None:
    rig.passed(1)
    rig.receive(2, PipeRecord(b"calls", RED, 77, 5))
    assert (rig.calls.algorithm, rig.calls.limit, dict(rig.calls.remote)) == (TAILDROP, 1, {2: 5})


def test_received_pipe_name_not_utf8_kept_and_usable(rig: Rig) -> None:
    rig.hear(2, 10, name=b"caf\xe9")
    assert not rig.limiter.check("caf\udce9", 1)


def test_received_pipes_number_bounded() -> None:
    rig = Rig(limits=Limits(max_received_pipes=3))
    rig.receive(2, *(PipeRecord(b"%d" % n, 1, 1, n) for n in range(5)))
    assert list(rig.limiter.pipes()) == ["0", "1", "2"]
    assert rig.limiter.stats.pipes_refused == 2
    # Counters of known pipes, and of own ones, are still taken.
    rig.hear(3, 8, name=b"1")
    rig.passed(1)
    rig.hear(3, 9)
    assert dict(rig.limiter.pipes()["1"].remote) == {2: 1, 3: 8}
    assert dict(rig.calls.remote) == {3: 9}


def test_remote_counters_number_bounded_and_freed() -> None:
    rig = Rig(limits=Limits(max_remote_counters=2))
    for node in (2, 3, 4):
        rig.hear(node, node)
    rig.hear(3, 30)
    assert dict(rig.calls.remote) == {2: 2, 3: 30}
    rig.receive(5, PipeRecord(b"other", 1, 1, 1))
    assert list(rig.limiter.pipes()) == ["calls"]
    rig.cluster.notify(-2, 2)
    rig.hear(4, 40)
    assert dict(rig.calls.remote) == {3: 30, 4: 40}
    rig.clock.advance(10)
    for node in (5, 6, 7):
        rig.hear(node, node)
    assert dict(rig.calls.remote) == {5: 5, 6: 6}


def test_received_pipe_name_too_long_refused(rig: Rig) -> None:
    rig.receive(2, PipeRecord(b"x" * 1_025, 1, 1, 1), PipeRecord(b"y" * 1_024, 1, 1, 1))
    assert list(rig.limiter.pipes()) == ["y" * 1_024]
    assert rig.limiter.stats.pipes_refused == 1


# -- removed pipes -----------------------------------------------------------------------------


def test_pipe_unused_for_3600_s_removed(rig: Rig) -> None:
    rig.passed(1)
    rig.clock.advance(3_590)
    assert "calls" in rig.limiter.pipes()
    rig.clock.advance(10)
    assert rig.limiter.pipes() == {}


def test_pipe_in_use_kept(rig: Rig) -> None:
    for _ in range(5):
        rig.passed(1)
        rig.clock.advance(3_000)
        assert "calls" in rig.limiter.pipes()


def test_received_pipe_3600_s_after_last_packet_removed(rig: Rig) -> None:
    rig.hear(2, 1)
    rig.clock.advance(3_000)
    rig.hear(2, 1)
    rig.clock.advance(3_590)
    assert "calls" in rig.limiter.pipes()
    rig.clock.advance(10)
    assert rig.limiter.pipes() == {}


def test_pipe_removed_frees_remote_counters() -> None:
    rig = Rig(limits=Limits(max_remote_counters=1, idle_lifetime=20, remote_lifetime=1_000))
    rig.passed(1)
    rig.hear(2, 5)
    rig.clock.advance(30)
    rig.hear(2, 5, name=b"other")
    assert list(rig.limiter.pipes()) == ["other"]


# -- the view ----------------------------------------------------------------------------------


def test_views_are_frozen_and_sorted(rig: Rig) -> None:
    for name in ("b", "c", "a"):
        rig.limiter.check(name, 1)
    view: Any = rig.limiter.pipes()
    assert list(view) == ["a", "b", "c"]
    with pytest.raises(AttributeError):
        view["a"].limit = 5
    with pytest.raises(TypeError):
        view["a"].remote[2] = 5
    rig.limiter.check("a", 1)
    assert view["a"].counter == 1


# -- any calls ---------------------------------------------------------------------------------

events = st.lists(
    st.one_of(
        st.tuples(st.just("check"), st.integers(1, 30)),
        st.tuples(st.just("hear"), st.integers(2, 4), st.integers(0, 30)),
        st.tuples(st.just("wait"), st.sampled_from([0.1, 1.0, 4.9, 10.0, 25.0])),
        st.tuples(st.just("silent"), st.integers(2, 4)),
    ),
    max_size=60,
)


@given(events)
def test_table_any_calls_match_plain_model(history: list[tuple[Any, ...]]) -> None:
    rig = Rig()
    start, own, heard = rig.clock.now, dict[int, int](), dict[int, tuple[int, float]]()
    for kind, *values in history:
        now = rig.clock.now
        if kind == "wait":
            rig.clock.now += values[0]
        elif kind == "hear":
            rig.hear(values[0], values[1])
            heard[values[0]] = values[1], now
        elif kind == "silent":
            rig.cluster.notify(-2, values[0])
            heard.pop(values[0], None)
        else:
            interval = int((now - start) // 10)
            remote = sum(value for value, came in heard.values() if now - came < 10)
            for _ in range(values[0]):
                own[interval] = own.get(interval, 0) + 1
                assert rig.limiter.check("calls", 2) == (own[interval] + remote <= 20)
            assert rig.calls.last_counter == own.get(interval - 1, 0)
