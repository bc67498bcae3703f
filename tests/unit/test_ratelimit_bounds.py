"""Own pipes with names from requests: bounded, the least recently used evicted first."""

from __future__ import annotations

import logging
import threading

import pytest

from clusterer.errors import InvalidArgument
from clusterer.modules.ratelimit import Algorithm, Limits, RateLimit
from clusterer.payloads.ratelimit import PipeRecord, build_packets, read_records
from clusterer.wire import PacketBuilder
from tests.support.fake_cluster import FakeClock, FakeCluster
from tests.support.processes import EVENTUALLY_S


def deliver(cluster: FakeCluster, machine_id: int, *records: PipeRecord) -> None:
    for packet in build_packets(lambda: PacketBuilder("ratelimit", 0, machine_id), records):
        cluster.deliver(packet)


def names_of(limits: RateLimit) -> set[str]:
    return {view.name for view in limits.pipes().values() if view.local}


def test_pipes_many_names_bounded_counted_logged_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    cluster = FakeCluster()
    limits = RateLimit(cluster, replicate_pipes_to=1)
    for number in range(30_000):
        assert limits.check(f"sip:user{number}@example.com", 10)
    assert names_of(limits) == {f"sip:user{number}@example.com" for number in range(20_000, 30_000)}
    assert limits.stats.pipes_evicted == 20_000
    (line,) = [each for each in caplog.records if each.name.startswith("clusterer")]
    assert (line.levelno, "more than 10000 own pipes" in line.message) == (logging.WARNING, True)
    assert limits.replicate()
    assert sum(len(read_records(packet)) for _, packet in cluster.sent) == 10_000


def test_pipes_full_evicts_least_recently_used() -> None:
    limits = RateLimit(FakeCluster(), max_pipes=3)
    for name in ("a", "b", "c", "a", "d"):
        limits.check(name, 5)
    assert names_of(limits) == {"a", "c", "d"}
    assert limits.pipes()["a"].counter == 2
    limits.check("c", 7)  # a check with another limit is a use as well
    limits.check("b", 5)
    assert names_of(limits) == {"b", "c", "d"}
    assert limits.pipes()["b"].counter == 1, "it counts from 0 again"
    assert limits.stats.pipes_evicted == 2


@pytest.mark.parametrize("algorithm", Algorithm)
def test_pipes_full_evicts_any_algorithm(algorithm: Algorithm) -> None:
    limits = RateLimit(FakeCluster(), max_pipes=1)
    for number in range(5):
        limits.check(f"pipe{number}", 50, algorithm)
    assert names_of(limits) == {"pipe4"}
    assert limits.stats.pipes_evicted == 4


def test_pipes_up_to_max_pipes_evicts_nothing(caplog: pytest.LogCaptureFixture) -> None:
    limits = RateLimit(FakeCluster(), max_pipes=100)
    for _ in range(3):
        for number in range(100):
            limits.check(f"pipe{number}", 5)
    assert len(names_of(limits)) == 100
    assert limits.stats.pipes_evicted == 0
    assert not caplog.records


def test_pipe_evicted_frees_remote_counters() -> None:
    cluster, clock = FakeCluster(), FakeClock()
    limits = RateLimit(
        cluster,
        accept_pipes_from=1,
        limits=Limits(max_pipes=1, max_remote_counters=2),
        clock=clock,
    )
    limits.start()
    for number in range(10):
        limits.check(f"pipe{number}", 5)
        deliver(cluster, 2, PipeRecord(b"pipe%d" % number, 1, 5, 1))
        deliver(cluster, 3, PipeRecord(b"pipe%d" % number, 1, 5, 1))
    limits.stop()
    assert limits.stats.pipes_refused == 0
    assert dict(limits.pipes()["pipe9"].remote) == {2: 1, 3: 1}


def test_pipe_evicted_and_received_is_not_local() -> None:
    cluster = FakeCluster()
    limits = RateLimit(cluster, accept_pipes_from=1, max_pipes=1)
    limits.start()
    for name in ("shared", "other"):
        limits.check(name, 5)
        deliver(cluster, 2, PipeRecord(b"shared", 1, 5, 9))
    limits.stop()
    views = limits.pipes()
    assert (views["shared"].local, dict(views["shared"].remote)) == (False, {2: 9})
    assert views["other"].local


def test_pipe_received_then_used_counts_as_own() -> None:
    cluster = FakeCluster()
    limits = RateLimit(cluster, accept_pipes_from=1, max_pipes=1)
    limits.start()
    deliver(cluster, 2, PipeRecord(b"theirs", 1, 5, 9))
    limits.check("ours", 5)
    assert limits.stats.pipes_evicted == 0
    limits.check("theirs", 5)
    limits.stop()
    assert names_of(limits) == {"theirs"}
    assert dict(limits.pipes()["theirs"].remote) == {2: 9}


def test_pipes_of_many_threads_stay_bounded() -> None:
    limits = RateLimit(FakeCluster(), max_pipes=50)

    def use(first: int) -> None:
        for number in range(first, first + 3_000):
            limits.check(f"pipe{number % 400}", 5)

    threads = [threading.Thread(target=use, args=(first,)) for first in range(0, 400, 100)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(EVENTUALLY_S)
    assert len(limits.pipes()) == 50
    assert limits.stats.pipes_evicted >= 350


@pytest.mark.parametrize("wrong", [0, -1, 1.5, True, "10", 2**31])
def test_max_pipes_invalid_raises(wrong: object) -> None:
    with pytest.raises(InvalidArgument, match="max_pipes must be an integer from 1"):
        RateLimit(FakeCluster(), max_pipes=wrong)  # type: ignore[arg-type]
    with pytest.raises(InvalidArgument, match="max_pipes must be an integer from 1"):
        RateLimit(FakeCluster(), limits=Limits(max_pipes=wrong))  # type: ignore[arg-type]
