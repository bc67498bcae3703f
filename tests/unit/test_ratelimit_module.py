"""The ratelimit module on a fake cluster: registering, sending, receiving."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

import pytest

from clusterer.cli.node import ratelimit_of
from clusterer.errors import InvalidArgument, StateUnavailable, UnknownCluster
from clusterer.ids import SERVER_TEMP_DISABLED, SERVER_TIMEOUT
from clusterer.modules.ratelimit import Algorithm, RateLimit, Stats
from clusterer.payloads.ratelimit import PipeRecord, build_packets, read_records
from clusterer.settings import Settings
from clusterer.wire import Packet, PacketBuilder
from tests.support.fake_cluster import FakeClock, FakeCluster, received
from tests.support.processes import EVENTUALLY_S

AWAY = StateUnavailable("Redis at redis.example:6379 is away")


def packet_from(machine_id: int, *records: PipeRecord, version: int = 1, type: int = 0) -> Packet:
    (packet,) = build_packets(
        lambda: PacketBuilder("ratelimit", type, machine_id, version), records
    )
    return packet


def calls(counter: int) -> PipeRecord:
    return PipeRecord(b"calls", 1, 100, counter)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def cluster() -> FakeCluster:
    return FakeCluster()


@pytest.fixture
def limiter(cluster: FakeCluster, clock: FakeClock) -> RateLimit:
    """A module that accepts packets, and sends when the test calls: its timer does not run."""
    made = RateLimit(cluster, replicate_pipes_to=7, accept_pipes_from=8, clock=clock)
    cluster.register_module("ratelimit", "bin", made._receiver.take, 10, False, 8)
    return made


# -- registering -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["replicate_pipes_to", "accept_pipes_from"])
def test_module_for_cluster_of_3x_is_refused(cluster: FakeCluster, name: str) -> None:
    cluster.settings = Settings(opensips_3_clusters="7")
    with pytest.raises(InvalidArgument, match=r"^cluster 7 is one of OpenSIPS 3\.x .* ratelimit "):
        RateLimit(cluster, **{name: 7})  # type: ignore[arg-type]
    RateLimit(cluster, **{name: 8})  # type: ignore[arg-type]


def test_module_before_start_registers_and_sends_nothing(cluster: FakeCluster) -> None:
    RateLimit(cluster, replicate_pipes_to=1, accept_pipes_from=1).check("calls", 1)
    assert (cluster.registered, cluster.sent) == ([], [])


def test_start_twice_registers_once(cluster: FakeCluster) -> None:
    limiter = RateLimit(cluster, accept_pipes_from=3, accept_pipes_timeout=5, auth_check=True)
    limiter.start()
    limiter.stop()
    limiter.start()
    (registered,) = cluster.registered
    del registered["callback"]
    assert registered == {
        "module_name": "ratelimit",
        "proto": "bin",
        "timeout": 5,
        "auth_check": True,
        "cluster_id": 3,
    }


def test_start_default_timeout_10_s_without_auth_check(cluster: FakeCluster) -> None:
    RateLimit(cluster, accept_pipes_from=3).start()
    assert cluster.registered[0]["timeout"] == 10
    assert cluster.registered[0]["auth_check"] is False


def test_start_accepting_nothing_registers_nothing(cluster: FakeCluster) -> None:
    with RateLimit(cluster, replicate_pipes_to=1):
        assert cluster.registered == []


def test_start_redis_unavailable_raises_and_is_repeatable(cluster: FakeCluster) -> None:
    limiter = RateLimit(cluster, replicate_pipes_to=1, accept_pipes_from=1)
    cluster.fault = AWAY
    with pytest.raises(StateUnavailable):
        limiter.start()
    assert "ratelimit" not in [thread.name for thread in threading.enumerate()]
    cluster.fault = None
    limiter.start()
    limiter.stop()
    assert len(cluster.registered) == 1


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("replicate_pipes_to", 0),
        ("replicate_pipes_to", "1"),
        ("accept_pipes_from", -1),
        ("accept_pipes_timeout", -1),
        ("accept_pipes_timeout", float("nan")),
        ("timer_interval", 0),
        ("timer_interval", "10"),
        ("timer_interval", True),
        ("replication_interval", 0),
        ("replication_interval", float("inf")),
    ],
)
def test_option_invalid_raises_with_name(cluster: FakeCluster, option: str, value: Any) -> None:
    with pytest.raises(InvalidArgument, match=f"^{option} must be "):
        RateLimit(cluster, **{option: value})


# -- sending -----------------------------------------------------------------------------------


def test_replicate_without_pipe_sends_heartbeat(limiter: RateLimit, cluster: FakeCluster) -> None:
    assert limiter.replicate()
    assert cluster.sent == [(7, Packet("ratelimit", 0, 1))]


def test_replicate_sends_last_counter(
    limiter: RateLimit, cluster: FakeCluster, clock: FakeClock
) -> None:
    for _ in range(5):
        limiter.check("calls", 100)
    limiter.replicate()
    clock.advance(10)
    limiter.check("calls", 100)
    limiter.replicate()
    sent = [read_records(packet) for _, packet in cluster.sent]
    assert sent == [[calls(0)], [calls(5)]]


def test_replicate_received_pipe_not_sent(limiter: RateLimit, cluster: FakeCluster) -> None:
    cluster.deliver(packet_from(2, calls(5)))
    limiter.replicate()
    assert read_records(cluster.sent[0][1]) == []


def test_replicate_many_pipes_sends_several_packets(
    limiter: RateLimit, cluster: FakeCluster
) -> None:
    for number in range(500):
        limiter.check(f"pipe {number}", 100)
    limiter.replicate()
    packets = [packet for _, packet in cluster.sent]
    assert len(packets) > 5
    assert max(len(packet.encode()) for packet in packets) <= 1_430
    assert len({name for packet in packets for name, *_ in read_records(packet)}) == 500
    assert limiter.stats.packets_sent == len(packets)


def test_replicate_without_cluster_sends_nothing(cluster: FakeCluster) -> None:
    limiter = RateLimit(cluster, accept_pipes_from=1)
    assert not limiter.replicate()
    with limiter:
        assert limiter._timer is None


def test_replicate_failing_logged_once_until_success(
    limiter: RateLimit, cluster: FakeCluster, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    cluster.fault = AWAY
    assert [limiter.replicate() for _ in range(5)] == [False] * 5
    assert [record.message for record in caplog.records] == [
        f"ratelimit cluster 7: sending pipe counters failed: {AWAY}; retrying"
    ]
    assert caplog.records[0].exc_info is None
    cluster.fault = UnknownCluster("no such cluster")
    limiter.replicate()
    cluster.fault = None
    assert limiter.replicate()
    limiter.replicate()
    cluster.fault = AWAY
    limiter.replicate()
    assert [record.levelname for record in caplog.records] == [
        "WARNING",
        "WARNING",
        "INFO",
        "WARNING",
    ]
    assert limiter.stats == Stats(packets_sent=2, send_failures=7)


def test_replicate_in_outage_of_redis_posts_nothing(
    limiter: RateLimit, cluster: FakeCluster, caplog: pytest.LogCaptureFixture
) -> None:
    """The next counters replace these: those of an outage would only fill the buffer."""
    assert limiter.replicate()
    cluster.age_s = 60.0
    assert not limiter.replicate()
    assert len(cluster.sent) == 1
    assert "sending pipe counters failed: Redis has not answered for 60 s" in caplog.text
    cluster.age_s = 0.5
    assert limiter.replicate()
    assert limiter.stats == Stats(packets_sent=2, send_failures=1)


def test_replicate_bug_logged_with_traceback(
    limiter: RateLimit, cluster: FakeCluster, caplog: pytest.LogCaptureFixture
) -> None:
    cluster.fault = RuntimeError("a bug")
    assert not limiter.replicate()
    assert caplog.records[0].exc_info is not None


# -- the timer ---------------------------------------------------------------------------------


class Sends:
    """Lets a test wait for a number of sends of the timer."""

    def __init__(self, cluster: FakeCluster) -> None:
        self._changed = threading.Condition()
        self.count = 0
        cluster.on_send = self._on_send

    def _on_send(self) -> None:
        with self._changed:
            self.count += 1
            self._changed.notify_all()

    def wait_for(self, count: int) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: self.count >= count, timeout=EVENTUALLY_S)


def test_timer_from_start_to_stop_sends_repeatedly(cluster: FakeCluster) -> None:
    sends = Sends(cluster)
    with RateLimit(cluster, replicate_pipes_to=1, replication_interval=0.001) as limiter:
        limiter.start()
        sends.wait_for(5)
        assert [t.name for t in threading.enumerate()].count("ratelimit") == 1
        assert all(t.daemon for t in threading.enumerate() if t.name == "ratelimit")
    count = sends.count
    assert "ratelimit" not in [thread.name for thread in threading.enumerate()]
    limiter.start()
    sends.wait_for(count + 1)
    limiter.stop()
    limiter.stop()


@pytest.mark.parametrize("fault", [AWAY, RuntimeError("a bug")])
def test_timer_after_failures_continues(cluster: FakeCluster, fault: Exception) -> None:
    sends = Sends(cluster)
    cluster.fault = fault
    with RateLimit(cluster, replicate_pipes_to=1, replication_interval=0.001):
        sends.wait_for(3)
        cluster.fault = None
        sends.wait_for(sends.count + 2)
    assert cluster.sent


def test_timer_stopped_from_own_call_ends(cluster: FakeCluster) -> None:
    done = threading.Event()
    limiter = RateLimit(cluster, replicate_pipes_to=1, replication_interval=0.001)

    def stop() -> None:
        limiter.stop()
        done.set()

    cluster.on_send = stop
    limiter.start()
    assert done.wait(EVENTUALLY_S)


# -- receiving ---------------------------------------------------------------------------------


def test_receive_counters_appear_in_pipes(limiter: RateLimit, cluster: FakeCluster) -> None:
    cluster.deliver(packet_from(2, calls(5)))
    view = limiter.pipes()["calls"]
    assert (dict(view.remote), view.limit, view.algorithm) == ({2: 5}, 100, Algorithm.TAILDROP)
    assert limiter.stats.packets_received == 1


def test_receive_heartbeat_changes_nothing(limiter: RateLimit, cluster: FakeCluster) -> None:
    cluster.deliver(packet_from(2))
    assert (limiter.pipes(), limiter.stats) == ({}, Stats(packets_received=1))


@pytest.mark.parametrize("version", [0, 2, -1])
def test_receive_other_version_dropped(
    limiter: RateLimit, cluster: FakeCluster, version: int
) -> None:
    cluster.deliver(packet_from(2, calls(5), version=version))
    assert (limiter.pipes(), limiter.stats) == ({}, Stats(packets_dropped=1))


def test_receive_other_type_dropped(limiter: RateLimit, cluster: FakeCluster) -> None:
    cluster.deliver(packet_from(2, calls(5), type=1))
    assert (limiter.pipes(), limiter.stats) == ({}, Stats(packets_dropped=1))


def test_receive_invalid_field_drops_whole_packet(limiter: RateLimit, cluster: FakeCluster) -> None:
    whole = packet_from(2, calls(5), PipeRecord(b"other", 1, 100, 6))
    cluster.deliver(whole._replace(payload=whole.payload[:-1]))
    assert (limiter.pipes(), limiter.stats) == ({}, Stats(payload_errors=1))


def test_receive_invalid_payload_reported_to_listener(
    limiter: RateLimit, cluster: FakeCluster
) -> None:
    cluster.deliver(packet_from(2, calls(5)._replace(algorithm=6)))
    assert cluster.bad_payloads == [
        "ratelimit pipe counters: pipe b'calls': field 'algorithm' is 6, which is unknown"
    ]


def test_receive_unknown_type_reported_to_listener(
    limiter: RateLimit, cluster: FakeCluster
) -> None:
    for _ in range(2):
        cluster.deliver(packet_from(2, calls(5), type=1))
    assert cluster.bad_payloads == ["ratelimit type 1 in version 1 is unknown"] * 2
    assert limiter.stats.packets_dropped == 2


def test_module_timeout_invalidates_counters_of_that_node(
    limiter: RateLimit, cluster: FakeCluster
) -> None:
    for node in (2, 3):
        cluster.deliver(packet_from(node, calls(100), PipeRecord(b"other", 1, 1, 10)))
    assert not limiter.check("other", 1)
    cluster.notify(SERVER_TIMEOUT, 2)
    assert {name: dict(view.remote) for name, view in limiter.pipes().items()} == {
        "calls": {3: 100},
        "other": {3: 10},
    }
    cluster.notify(SERVER_TIMEOUT, 3)
    assert limiter.check("other", 1)
    assert limiter.stats.timeouts == 2


def test_receive_from_muted_node_ignored(limiter: RateLimit, cluster: FakeCluster) -> None:
    packet = packet_from(2, calls(5))
    cluster.notify(SERVER_TEMP_DISABLED, 2, received(packet))
    assert (limiter.pipes(), limiter.stats) == ({}, Stats())


def test_receive_after_module_timeout_counts_again(
    limiter: RateLimit, cluster: FakeCluster
) -> None:
    cluster.deliver(packet_from(2, calls(5)))
    cluster.notify(SERVER_TIMEOUT, 2)
    cluster.deliver(packet_from(2, calls(6)))
    assert dict(limiter.pipes()["calls"].remote) == {2: 6}


# -- two instances and threads -----------------------------------------------------------------


def test_two_instances_share_one_limit(clock: FakeClock) -> None:
    """The guide's example: instance B may not use what A used in its last interval."""
    nodes = [FakeCluster(1), FakeCluster(2)]
    limiters = [
        RateLimit(node, replicate_pipes_to=1, accept_pipes_from=1, clock=clock) for node in nodes
    ]
    for node, limiter in zip(nodes, limiters, strict=True):
        node.register_module("ratelimit", "bin", limiter._receiver.take, 10, False, 1)
    first, second = limiters
    assert sum(first.check("calls", 5) for _ in range(30)) == 30
    clock.advance(10)
    first.replicate()
    nodes[1].deliver(nodes[0].sent[-1][1])
    assert sum(second.check("calls", 5) for _ in range(30)) == 20


def test_check_in_threads_loses_no_check(cluster: FakeCluster) -> None:
    limiter = RateLimit(cluster, timer_interval=3_600)
    barrier = threading.Barrier(4)
    passed: list[int] = []

    def use() -> None:
        barrier.wait(EVENTUALLY_S)
        passed.append(sum(limiter.check("calls", 1) for _ in range(5_000)))

    threads = [threading.Thread(target=use) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(EVENTUALLY_S)
    assert sum(passed) == 3_600
    assert limiter.pipes()["calls"].counter == 20_000


@pytest.mark.parametrize(
    "call",
    [
        lambda limiter: limiter.check("calls", 1),
        lambda limiter: limiter.pipes(),
        lambda limiter: limiter.replicate(),
        lambda limiter: limiter._receiver.take(0, received(packet_from(2, calls(1))), 2),
        lambda limiter: limiter._receiver.take(SERVER_TIMEOUT, None, 2),
    ],
    ids=["check", "pipes", "replicate", "packet", "timeout"],
)
def test_table_call_waits_for_call_of_other_thread(
    limiter: RateLimit, call: Callable[[RateLimit], object]
) -> None:
    """CPython's own lock hides most races from a test with threads: check the table's lock."""
    thread = threading.Thread(target=call, args=(limiter,), daemon=True)
    with limiter._table._lock:
        thread.start()
        thread.join(0.05)
        assert thread.is_alive()
    thread.join(EVENTUALLY_S)
    assert not thread.is_alive()


@pytest.mark.parametrize("checked", [False, True])
def test_auth_check_setting_registered(checked: bool) -> None:
    settings = Settings(accept_pipes_from=1, repl_pipes_auth_check=checked)
    cluster: Any = FakeCluster()
    limiter = ratelimit_of(cluster, settings)
    assert limiter is not None
    limiter.start()
    assert [registered["auth_check"] for registered in cluster.registered] == [checked]
