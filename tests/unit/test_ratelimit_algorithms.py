"""Algorithms that use more than one interval: RED, FEEDBACK, NETWORK, HISTORY."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from clusterer.errors import InvalidArgument
from clusterer.modules.ratelimit import Algorithm, Limits, PipeView, RateLimit
from clusterer.modules.ratelimit.algorithms import PERMUTATION, RULES
from clusterer.payloads.ratelimit import PipeCounters, PipeRecord, build_packets, read_records
from tests.support.fake_cluster import FakeClock, FakeCluster

NONE, TAILDROP, RED, FEEDBACK, NETWORK, HISTORY = Algorithm


class Rig:
    """A RateLimit that is not started; the test sets clock, CPU load and unread bytes."""

    def __init__(self, now: float = 1_000.0, **options: Any) -> None:
        self.clock = FakeClock(now)
        self.cluster = FakeCluster()
        self.load = 0.0
        self.queued = 0
        self.limiter = RateLimit(
            self.cluster,
            replicate_pipes_to=1,
            clock=self.clock,
            cpu_load=lambda: self.load,
            queued_bytes=lambda: self.queued,
            **options,
        )

    def passed(self, times: int, limit: int, algorithm: int, name: str = "calls") -> int:
        return sum(self.limiter.check(name, limit, algorithm) for _ in range(times))

    def measure(self, *, load: float = 0.0, queued: int = 0) -> None:
        self.load, self.queued = load, queued
        self.limiter.sample()

    def hear(self, machine_id: int, counter: int, algorithm: int = HISTORY) -> None:
        records = [PipeRecord(b"calls", algorithm, 1, counter)]
        (packet,) = build_packets(lambda: FakeCluster(machine_id).packet("ratelimit", 0), records)
        self.limiter._table.receive(machine_id, read_records(packet), self.clock())

    @property
    def sent(self) -> list[PipeRecord]:
        self.cluster.sent.clear()
        assert self.limiter.replicate()
        packets = [packet for _, packet in self.cluster.sent]
        return [record for packet in packets for record in PipeCounters.decode(packet).pipes]

    @property
    def calls(self) -> PipeView:
        return self.limiter.pipes()["calls"]


@pytest.fixture
def rig() -> Rig:
    return Rig()


def test_none_pipe_sent_nowhere(rig: Rig) -> None:
    """OpenSIPS 2.2.8 would log a warning for each packet."""
    rig.passed(5, 50, TAILDROP)
    rig.passed(5, 50, NONE, name="counted")
    assert [record.name for record in rig.sent] == [b"calls"]
    rig.passed(5, 50, NONE)
    assert rig.sent == []
    rig.passed(1, 50, TAILDROP, name="counted")
    assert [record.name for record in rig.sent] == [b"counted"]


def test_rules_cover_every_algorithm() -> None:
    assert list(RULES) == list(Algorithm)


# -- RED ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("last", "limit", "passed"),
    [
        (0, 1, 100),
        (9, 1, 100),
        (10, 1, 100),
        (19, 1, 100),
        (20, 1, 50),
        (29, 1, 50),
        (30, 1, 33),
        (99, 1, 11),
        (100, 1, 10),
        (100, 5, 50),
        (100, 11, 100),
        (2_000, 1, 0),
    ],
)
def test_red_after_overload_passes_one_check_in_load(
    rig: Rig, last: int, limit: int, passed: int
) -> None:
    rig.passed(last, limit, RED)
    rig.clock.advance(10)
    assert rig.passed(100, limit, RED) == passed


def test_red_new_limit_changes_load_at_once(rig: Rig) -> None:
    rig.passed(100, 1, RED)
    rig.clock.advance(10)
    assert rig.passed(100, 5, RED) == 50


# -- NETWORK -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("queued", "passes"), [(0, 1), (999, 1), (1_000, 1), (1_001, 0)])
def test_network_above_limit_of_unread_bytes_refuses(rig: Rig, queued: int, passes: int) -> None:
    rig.passed(1, 1_000, NETWORK)
    rig.measure(queued=queued)
    assert rig.passed(5, 1_000, NETWORK) == 5 * passes
    rig.measure(queued=0)
    assert rig.passed(5, 1_000, NETWORK) == 5


def test_network_two_pipes_have_separate_limits(rig: Rig) -> None:
    rig.passed(1, 1_000, NETWORK)
    rig.measure(queued=500)
    assert rig.passed(1, 1_000, NETWORK) == 1
    assert rig.passed(1, 400, NETWORK, name="others") == 0


# -- FEEDBACK ----------------------------------------------------------------------------------


def test_permutation_has_each_number_once_and_spreads_evenly() -> None:
    assert sorted(PERMUTATION) == list(range(100))
    for rate in (5, 10, 25, 50, 75):
        refused = [n for n in range(200) if PERMUTATION[n % 100] < rate]
        gaps = [b - a for a, b in pairwise(refused)]
        assert max(gaps) <= 2 * 100 / rate + 1


@pytest.mark.parametrize(
    ("loads", "refused"),
    [
        ([], 0),
        ([0.0], 0),
        ([0.5], 0),
        ([0.7], 5),
        ([1.0], 13),  # 12.5 %: every number below
        ([0.7, 0.7], 10),
        ([1.0] * 8, 100),
        ([1.0] * 20, 100),
        ([0.7, 0.6, 0.5], 8),  # 7.5 %, kept while the load equals the limit
        ([0.7, 0.3], 0),
        ([0.0, 0.0, 0.7], 5),  # earlier idle times do not count
        ([0.6, 0.0, 0.6], 0),  # the integral has to reach 0 again
    ],
)
def test_feedback_refuses_drop_rate_of_controller(
    rig: Rig, loads: list[float], refused: int
) -> None:
    rig.passed(1, 50, FEEDBACK)
    for load in loads:
        rig.clock.advance(10)
        rig.measure(load=load)
    rig.clock.advance(10)
    assert rig.passed(100, 50, FEEDBACK) == 100 - refused


def test_controller_many_samples_step_once_an_interval(rig: Rig) -> None:
    rig.passed(1, 50, FEEDBACK)
    for _ in range(9):
        rig.measure(load=0.7)
        rig.clock.advance(1)
    assert rig.passed(100, 50, FEEDBACK) == 95


def test_feedback_counts_total_of_all_instances(rig: Rig) -> None:
    rig.passed(1, 50, FEEDBACK)
    rig.clock.advance(10)
    rig.measure(load=1.0)
    rig.hear(2, 37, FEEDBACK)
    refused = [n for n in range(1, 101) if not rig.limiter.check("calls", 50, FEEDBACK)]
    assert refused == [n for n in range(1, 101) if PERMUTATION[(n + 37) % 100] < 12.5]


def test_feedback_newest_limit_applies_to_all_pipes(rig: Rig) -> None:
    rig.passed(1, 50, FEEDBACK)
    rig.passed(1, 7, TAILDROP, name="taildrop")
    rig.passed(1, 60, FEEDBACK, name="others")
    rig.passed(1, 50, FEEDBACK)  # unchanged
    assert {view.name: view.limit for view in rig.limiter.pipes().values()} == {
        "calls": 60,
        "others": 60,
        "taildrop": 7,
    }
    assert {record.limit for record in rig.sent} == {60, 7}
    rig.clock.advance(10)
    rig.measure(load=0.7)
    assert rig.passed(100, 50, FEEDBACK) == 97
    rig.passed(1, 40, FEEDBACK)
    assert rig.limiter.pipes()["others"].limit == 40


def test_controller_time_without_feedback_pipes_resets() -> None:
    rig = Rig(limits=Limits(idle_lifetime=20))
    rig.passed(1, 50, FEEDBACK)
    rig.measure(load=1.0)
    rig.clock.advance(20)
    rig.measure(load=1.0)
    assert rig.passed(100, 50, FEEDBACK) == 100
    rig.clock.advance(10)
    rig.measure(load=0.7)
    assert rig.passed(100, 50, FEEDBACK) == 95


@pytest.mark.parametrize("limit", [-1, 0, 100, 2**31, 50.0, None, True])
def test_feedback_limit_outside_percentage_raises(rig: Rig, limit: Any) -> None:
    with pytest.raises(InvalidArgument, match=r"'calls' must be a percentage of CPU load, .* 1 to"):
        rig.limiter.check("calls", limit, FEEDBACK)
    assert rig.limiter.pipes() == {}


@pytest.mark.parametrize("limit", [1, 99])
def test_feedback_limit_1_to_99_accepted(rig: Rig, limit: int) -> None:
    assert rig.limiter.check("calls", limit, FEEDBACK)


# -- HISTORY -----------------------------------------------------------------------------------


def test_history_limit_applies_to_window(rig: Rig) -> None:
    assert rig.passed(100, 30, HISTORY) == 30


def test_window_check_expires_with_slot_of_200_ms(rig: Rig) -> None:
    rig.passed(3, 3, HISTORY)
    rig.clock.now = 1_000.199
    rig.passed(4, 3, HISTORY)
    rig.clock.now = 1_000.2
    rig.passed(5, 3, HISTORY)
    for now, left in ((1_009.999, 12), (1_010.0, 5), (1_010.199, 5), (1_010.2, 0)):
        rig.clock.now = now
        assert rig.calls.window == left


def test_window_refused_check_counts(rig: Rig) -> None:
    rig.passed(30, 10, HISTORY)
    rig.clock.advance(5)
    assert rig.passed(1, 10, HISTORY) == 0
    rig.clock.advance(5)
    assert (rig.passed(20, 10, HISTORY), rig.calls.window) == (9, 21)


def test_window_at_interval_end_keeps_checks(rig: Rig) -> None:
    rig.clock.advance(9.9)
    rig.passed(10, 10, HISTORY)
    rig.clock.advance(0.2)
    assert rig.calls.counter == 0
    assert rig.passed(1, 10, HISTORY) == 0


@pytest.mark.parametrize("pause", [10, 10.2, 20, 1_000])
def test_window_after_pause_is_empty(rig: Rig, pause: float) -> None:
    rig.passed(10, 10, HISTORY)
    rig.clock.advance(pause)
    assert rig.passed(20, 10, HISTORY) == 10


def test_history_adds_remote_counters(rig: Rig) -> None:
    rig.hear(2, 3)
    rig.hear(3, 4)
    assert rig.passed(20, 10, HISTORY) == 3
    rig.clock.advance(10)
    assert rig.passed(20, 10, HISTORY) == 10


def test_history_sends_current_own_window(rig: Rig) -> None:
    rig.hear(2, 100)
    rig.passed(7, 10, HISTORY)
    assert rig.sent == [(b"calls", HISTORY, 10, 7)]
    rig.clock.advance(5)
    rig.passed(2, 10, HISTORY)
    assert rig.sent == [(b"calls", HISTORY, 10, 9)]
    rig.clock.advance(5)
    assert rig.sent == [(b"calls", HISTORY, 10, 2)]
    rig.clock.advance(5)
    assert rig.sent == [(b"calls", HISTORY, 10, 0)]


def test_history_between_instances_does_not_echo() -> None:
    first, second = Rig(), Rig()
    first.passed(5, 10, HISTORY)
    second.passed(4, 10, HISTORY)
    for _ in range(5):
        second.hear(1, first.sent[0].counter)
        first.hear(2, second.sent[0].counter)
    assert (first.sent[0].counter, second.sent[0].counter) == (5, 4)
    assert (first.passed(5, 10, HISTORY), second.passed(5, 10, HISTORY)) == (1, 1)


def test_window_late_thread_counts_in_newest_slot(rig: Rig) -> None:
    """The thread read the clock before another thread moved the window."""
    rig.passed(1, 10, HISTORY)
    rig.clock.advance(1)
    rig.passed(1, 10, HISTORY)
    rig.clock.advance(-0.5)
    rig.passed(1, 10, HISTORY)
    rig.clock.now = 1_010.9
    assert rig.calls.window == 2
    rig.clock.now = 1_011.0
    assert rig.calls.window == 0


def test_history_new_limit_keeps_window(rig: Rig) -> None:
    rig.passed(10, 10, HISTORY)
    assert rig.passed(5, 12, HISTORY) == 2


def test_pipe_changed_algorithm_sends_its_counter(rig: Rig) -> None:
    rig.passed(10, 10, HISTORY)
    rig.clock.advance(10)
    rig.passed(3, 10, TAILDROP)
    assert rig.sent == [(b"calls", TAILDROP, 10, 10)]
    rig.passed(1, 10, HISTORY)
    assert rig.sent == [(b"calls", HISTORY, 10, 1)]


# -- all algorithms against a plain model -------------------------------------------------------


@dataclass
class Model:
    """Keeps every event with its time in ms, and computes every result again for each check."""

    algorithm: int
    limit: int
    now: int = 0
    checks: list[int] = field(default_factory=list)
    heard: dict[int, tuple[int, int]] = field(default_factory=dict)
    errors: list[Fraction] = field(default_factory=list)
    stepped: set[int] = field(default_factory=set)
    queued: int = 0

    def measure(self, load: Fraction, queued: int) -> None:
        if self.algorithm == NETWORK and self.checks:
            self.queued = queued
        interval = self.now // 10_000
        if interval not in self.stepped and self.checks:
            self.errors.append(Fraction(self.limit, 100) - load)
        self.stepped.add(interval)

    def check(self) -> bool:
        self.checks.append(self.now)
        remote = sum(value for value, came in self.heard.values() if self.now - came < 10_000)
        own, last = (
            sum(1 for at in self.checks if at // 10_000 == self.now // 10_000 - back)
            for back in (0, 1)
        )
        window = sum(1 for at in self.checks if self.now // 200 - at // 200 < 50)
        if self.algorithm == TAILDROP:
            return own + remote <= self.limit * 10
        if self.algorithm == RED:
            load = last // (self.limit * 10)
            return load == 0 or (own + remote) % load == 0
        if self.algorithm == FEEDBACK:
            return PERMUTATION[(own + remote) % 100] >= self.drop_rate()
        if self.algorithm == NETWORK:
            return self.queued <= self.limit
        if self.algorithm == HISTORY:
            return window + remote <= self.limit
        return True

    def drop_rate(self) -> Fraction:
        integral = Fraction(0)
        for error in self.errors:
            if integral < 0 or error < 0:
                integral += error
        return max(Fraction(0), -25 * integral)


# Times of 1/8 s and loads of 1/16 have no rounding: the model's are exact.
events = st.lists(
    st.one_of(
        st.tuples(st.just("check"), st.integers(1, 40)),
        st.tuples(st.just("hear"), st.integers(2, 4), st.integers(0, 40)),
        st.tuples(st.just("wait"), st.sampled_from([125, 250, 875, 5_000, 9_875, 10_000, 25_000])),
        st.tuples(st.just("measure"), st.integers(0, 16), st.integers(0, 100)),
    ),
    max_size=60,
)


@pytest.mark.parametrize("algorithm", list(Algorithm))
@given(limit=st.sampled_from([25, 50, 75, 1, 2]), history=events)
@example(25, [("check", 1), *[("wait", 10_000), ("measure", 16, 0), ("check", 40)] * 3])
@example(1, [("check", 40), ("wait", 10_000), ("hear", 2, 3), ("check", 40)])
def test_history_any_checks_match_plain_model(
    algorithm: int, limit: int, history: list[tuple[Any, ...]]
) -> None:
    if algorithm == FEEDBACK and limit < 25:
        limit = 50  # a hundredth of the limit has to be exact as well
    rig, model = Rig(now=0.0), Model(algorithm, limit)
    for kind, *values in history:
        if kind == "wait":
            model.now += values[0]
            rig.clock.now = model.now / 1_000
        elif kind == "hear":
            rig.hear(values[0], values[1], algorithm)
            model.heard[values[0]] = values[1], model.now
        elif kind == "measure":
            rig.measure(load=values[0] / 16, queued=values[1])
            model.measure(Fraction(values[0], 16), values[1])
        else:
            for _ in range(values[0]):
                assert rig.limiter.check("calls", limit, algorithm) == model.check()


# -- speed -------------------------------------------------------------------------------------


@pytest.mark.serial
@pytest.mark.parametrize("algorithm", list(Algorithm))
def test_check_takes_at_most_ten_times_the_promise(rig: Rig, algorithm: int) -> None:
    """A benchmark measures the promise of 500,000 calls a second: see docs/ratelimit.md."""
    begun = time.process_time()
    rig.passed(10_000, 50, algorithm)
    assert time.process_time() - begun < 10_000 / 50_000
