"""`clusterer tail` and `clusterer replay` beside a listener, over real sockets and Redis."""

from __future__ import annotations

import json
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import pytest
import redis

from clusterer import PROTO_BIN, Clusterer
from clusterer.cli import main
from clusterer.errors import ClustererError, PeerUnreachable, StateUnavailable
from clusterer.listener import Listener
from clusterer.listener import capture as capturing
from clusterer.listener.capture import Capture
from clusterer.listener.counters import Counters
from clusterer.runtime.stop import StopFlag
from clusterer.services.admin import replay
from clusterer.services.admin.recording import Record, Recorder, Recording
from clusterer.services.admin.replay import NodeConnection
from clusterer.services.admin.tail import Arrival, Lost, Tail, receiver_of
from clusterer.settings import Settings
from clusterer.store import ClusterKey, keys
from clusterer.store.captures import ASK_MS, ENTRIES_CAP, MAX_ENTRY, Captured, CaptureStore
from clusterer.wire import FrameDecoder, Packet
from tests.support.cluster import delivering
from tests.support.frames import frame
from tests.support.listening import Recorded, listener_of, peer, serving
from tests.support.ports import free_port
from tests.support.processes import EVENTUALLY_S, LATE_S, wait_until
from tests.support.redis_server import RedisServer
from tests.support.seeding import make_node, put_node
from tests.support.streams import entries
from tests.support.throttle import ThrottledReceiver


@pytest.fixture
def store(redis_url: str) -> Iterator[CaptureStore]:
    made = CaptureStore(Settings(redis_url=redis_url))
    yield made
    made.close()


class Tailing:
    """A tail in a thread that remembers what it got."""

    def __init__(self, store: CaptureStore, receiver: int = 1) -> None:
        self.got: list[Arrival] = []
        self._stop = StopFlag()
        self._tail = Tail(store, receiver)
        self._thread = threading.Thread(target=self._work)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(EVENTUALLY_S)
        self._stop.close()

    @property
    def packets(self) -> list[Packet]:
        return [arrival.packet for arrival in self.got if isinstance(arrival, Record)]

    @property
    def lost(self) -> int:
        return sum(arrival.count for arrival in self.got if isinstance(arrival, Lost))

    def _work(self) -> None:
        for arrivals in self._tail.arrivals(self._stop):
            self.got += arrivals


def flushed(client: redis.Redis) -> bool:
    return client.hexists(keys.modules(1), "heartbeat")


def is_capturing(listener: Listener) -> bool:
    return listener._capture.active


def test_tail_shows_known_and_unknown_packets_with_source(
    listener: Listener, port: int, store: CaptureStore, redis_client: redis.Redis
) -> None:
    """Also of an instance without a single registered module."""
    with serving(listener), peer(port) as connection:
        wait_until(lambda: flushed(redis_client))
        with Tailing(store) as tail:
            wait_until(lambda: is_capturing(listener))
            began = time.time()
            connection.sendall(
                frame(kind=5, sender=2)
                + frame(kind=-1, sender=2)
                + frame(kind=6, sender=9, module="unknown")
            )
            wait_until(lambda: len(tail.packets) == 3)
        first = tail.got[0]
        assert isinstance(first, Record)
        assert first.source == connection.getsockname()
        assert first.receiver == 1
        assert abs(first.time - began) < 2 + LATE_S
    seen = [(packet.module, packet.type, packet.machine_id) for packet in tail.packets]
    assert seen == [("ratelimit", 5, 2), ("ratelimit", -1, 2), ("unknown", 6, 9)]
    assert tail.packets[0].encode() == frame(kind=5, sender=2)
    assert tail.lost == 0


def test_capture_without_tail_copies_nothing(
    listener: Listener, port: int, store: CaptureStore, redis_client: redis.Redis
) -> None:
    recorded = Recorded()
    listener.register("ratelimit", recorded, timeout_s=0, auth_check=True, cluster_id=1)
    with serving(listener), peer(port) as connection:
        wait_until(lambda: flushed(redis_client))
        connection.sendall(frame(sender=2))
        recorded.wait_for(1, 2)
        assert listener.counters.captured == 0
        with Tailing(store):
            wait_until(lambda: is_capturing(listener))
        wait_until(lambda: not is_capturing(listener), ASK_MS / 1000 + 2)
        before = listener.counters.captured
        connection.sendall(frame(kind=2, sender=2))
        recorded.wait_for(2, 2)
        assert listener.counters.captured == before


def test_tail_for_long_is_served_for_long(
    listener: Listener, port: int, store: CaptureStore, redis_client: redis.Redis
) -> None:
    with serving(listener), peer(port) as connection:
        wait_until(lambda: flushed(redis_client))
        with Tailing(store) as tail:
            wait_until(lambda: is_capturing(listener))
            time.sleep(ASK_MS / 1000 + 1)
            connection.sendall(frame(kind=5, sender=2))
            wait_until(lambda: len(tail.packets) == 1)
        assert 0 < redis_client.pttl(keys.capture(1)) <= 10_000, "nothing stays behind"


def test_tail_paused_reports_missing_packets(
    listener: Listener,
    store: CaptureStore,
    redis_client: redis.Redis,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Packets outside the capture have no number: counting does not show the gap."""
    with serving(listener):
        wait_until(lambda: flushed(redis_client))
        with Tailing(store) as tail:
            wait_until(lambda: is_capturing(listener))
            assert not any("tail: paused" in line for line in caplog.messages)
            tail._tail._asked_at -= ASK_MS / 1000
            wait_until(lambda: any("tail: paused for" in line for line in caplog.messages))


def test_tail_overflow_is_counted_and_delays_no_packet(
    listener: Listener,
    port: int,
    store: CaptureStore,
    redis_client: redis.Redis,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(capturing, "MAX_PACKETS", 1000)
    monkeypatch.setattr(capturing, "_MOST_AT_ONCE", 50)
    recorded = Recorded()
    listener.register("ratelimit", recorded, timeout_s=0, auth_check=True, cluster_id=1)
    with serving(listener), peer(port) as connection:
        wait_until(lambda: flushed(redis_client))
        with Tailing(store) as tail:
            wait_until(lambda: is_capturing(listener))
            connection.sendall(frame(sender=2, size=41) * 10_000)
            wait_until(lambda: len(recorded.calls) == 10_000)
            wait_until(lambda: not listener._capture._queue)
            connection.sendall(frame(kind=2, sender=2))
            wait_until(
                lambda: any(isinstance(a, Record) and a.packet.type == 2 for a in tail.got[-3:])
            )
        assert listener.counters.capture_losses > 0
        assert len(tail.packets) + tail.lost == 10_001


def test_capture_is_bounded_in_redis(store: CaptureStore, redis_client: redis.Redis) -> None:
    for number in range(ENTRIES_CAP + 50):
        store.write(1, [Captured(number, 0, ("127.0.0.2", 1), frame(kind=0, sender=2))])
    assert redis_client.xlen(keys.capture(1)) == ENTRIES_CAP
    last, found = store.read(1, "0-0", 100)
    assert [packet.number for packet in found] == list(range(50, ENTRIES_CAP + 50))
    assert found[0] == Captured(50, 0, ("127.0.0.2", 1), frame(kind=0, sender=2))
    assert store.read(1, last, 10) == (last, [])


class Away:
    """A store whose Redis is away, until it is not."""

    def __init__(self) -> None:
        self.away = True
        self.written: list[Captured] = []
        self.sizes: list[int] = []

    def write(self, receiver: int, packets: list[Captured]) -> None:
        if self.away:
            raise StateUnavailable("away")
        self.written += packets
        self.sizes.append(sum(len(packet.frame) for packet in packets))

    def close(self) -> None: ...


def test_capture_is_bounded_in_memory_and_survives_outage(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(capturing, "MAX_PACKETS", 100)
    store, counters = Away(), Counters()
    capture = Capture(1, store, counters)  # type: ignore[arg-type]  # what is called is there
    packets = [Packet("ul", 1, 2)] * 1_000
    assert list(capture.copied(iter(packets), ("127.0.0.2", 1))) == packets
    assert (counters.captured, counters.capture_losses) == (100, 900)
    capture.begin(time.monotonic() + 60)
    wait_until(lambda: any("packets not captured" in line for line in caplog.messages))
    store.away = False
    big = [Packet("ul", 2, 2, b"\0" * 60_000)] * 20
    list(capture.copied(iter(big), ("127.0.0.2", 1)))
    wait_until(lambda: len(store.written) == 20)
    capture.stop()
    assert max(store.sizes) <= MAX_ENTRY
    assert [packet.number for packet in store.written] == list(range(1_001, 1_021))


def test_capture_waiting_bytes_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capturing, "MAX_BYTES", 100_000)
    counters = Counters()
    capture = Capture(1, Away(), counters)  # type: ignore[arg-type]  # nothing is called
    big = [Packet("ul", 2, 2, b"\0" * 60_000)] * 3
    list(capture.copied(iter(big), ("127.0.0.2", 1)))
    assert (counters.captured, counters.capture_losses) == (1, 2)


def test_tail_survives_restart_of_redis_and_instance(
    own_redis_server: Callable[[], RedisServer], caplog: pytest.LogCaptureFixture
) -> None:
    server, port = own_redis_server(), free_port()
    with server.client() as client:
        for machine_id in (1, 2):
            put_node(client, make_node(machine_id, port=port))
        store = CaptureStore(Settings(redis_url=server.url))
        with listener_of(server.url) as first:
            with serving(first):
                wait_until(lambda: flushed(client))
                tail = Tailing(store)
            with tail:
                server.stop()
                wait_until(lambda: any("waiting for Redis" in line for line in caplog.messages))
                server.start()
                with listener_of(server.url) as second, serving(second):
                    wait_until(lambda: is_capturing(second))
                    with peer(port) as connection:
                        connection.sendall(frame(kind=7, sender=2))
                        wait_until(lambda: [p.type for p in tail.packets] == [7])
        assert tail.lost == 0
        store.close()


def test_tail_option_selects_instance(
    store: CaptureStore, redis_client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(ClustererError, match="Redis has no instance"):
        receiver_of(store, 0)
    redis_client.sadd(keys.INSTANCES, 4)
    assert receiver_of(store, 0) == 4
    redis_client.sadd(keys.INSTANCES, 11)
    with pytest.raises(ClustererError, match=r"instances 4, 11 .* --server-id"):
        receiver_of(store, 0)
    assert receiver_of(store, 7) == 7
    with pytest.raises(ClustererError, match="instance 4 does not receive"):
        Tail(store, 4)
    assert not redis_client.exists(keys.modules(4)), "asking leaves nothing behind"
    redis_client.hset(keys.modules(4), mapping={"run": "x", "heartbeat": 1})
    Tail(store, 4)
    assert any("instance 4: not running" in line for line in caplog.messages)


# -- the commands ----------------------------------------------------------------------------


def test_tail_filters_records_and_ends(  # noqa: PLR0917 - fixtures
    listener: Listener,
    port: int,
    redis_url: str,
    redis_client: redis.Redis,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / "recording"
    stop = threading.Event()

    def traffic() -> None:
        with peer(port) as connection:
            while not stop.wait(0.05):
                connection.sendall(
                    frame(sender=2)
                    + frame(kind=2, sender=3)
                    + frame(kind=3, sender=2, module="ul")
                    + frame(kind=4, sender=2)
                )

    with serving(listener):
        wait_until(lambda: flushed(redis_client))
        sending = threading.Thread(target=traffic)
        sending.start()
        try:
            base = ["tail", "--redis-url", redis_url]
            chosen = ["--node", "2", "--module", "ratelimit", "--module", "other", "--count", "4"]
            assert main([*base, *chosen, "--write", str(path)]) == 0
            lines = capsys.readouterr().out.splitlines()
            assert main([*base, *chosen, "--json"]) == 0
            objects = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
            assert main([*base, "--write", str(path)]) == 1
            assert "not overwritten" in capsys.readouterr().err
        finally:
            stop.set()
            sending.join()
    assert len(lines) == 4
    assert all(" node 2 ratelimit " in line for line in lines)
    assert {(one["node"], one["module"]) for one in objects} == {(2, "ratelimit")}
    records = list(Recording(path))
    assert {record.packet.encode() for record in records} == {
        frame(sender=2),
        frame(kind=4, sender=2),
    }
    assert len(records) == 4


def record(path: Path, *frames_at: tuple[float, Packet]) -> Path:
    with Recorder(path) as recorder:
        for at, packet in frames_at:
            recorder.add(Record(1_000.0 + at, 1, ("127.0.0.2", 1), packet))
    return path


def packet_of(kind: int, machine_id: int | None = 2) -> Packet:
    return Packet("ratelimit", kind, machine_id)


def test_replay_sends_to_a_node_at_the_pace_of_the_recording(
    listener: Listener, port: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recorded = Recorded()
    times: list[float] = []
    recorded.act = lambda kind: times.append(time.monotonic())
    listener.register("ratelimit", recorded, timeout_s=0, auth_check=True, cluster_id=1)
    path = record(tmp_path / "a", *((number * 0.4, packet_of(number)) for number in range(3)))
    with path.open("a", encoding="utf-8") as file:
        file.write('{"time": 12')
    with serving(listener):
        base = ["replay", str(path), "--to", f"bin:127.0.0.1:{port}"]
        assert main([*base, "--bind", "127.0.0.2", "--speed", "2"]) == 0
        recorded.wait_for(2, 2)
        out = capsys.readouterr().out
        assert re.search(rf"Sent 3 packets in [0-9.]+ s to 127\.0\.0\.1 port {port}\.", out)
        assert "cut off" in out
        assert times[-1] - times[0] > 0.3
        assert main([*base, "--bind", "127.0.0.3", "--speed", "max", "--as", "3"]) == 0
        recorded.wait_for(2, 3)
    assert recorded.seen == [(0, 2), (1, 2), (2, 2), (0, 3), (1, 3), (2, 3)]


def test_replay_sends_to_a_cluster_as_this_machine(
    redis_url: str, redis_client: redis.Redis, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for machine_id in (1, 2):
        put_node(redis_client, make_node(machine_id, port=free_port()))
    path = record(
        tmp_path / "a",
        (0, packet_of(1, 9)),
        (0, packet_of(-1, 9)),
        (0, packet_of(3, None)),
        (0.1, packet_of(4, 8)),
    )
    recorded = Recorded()
    with listener_of(redis_url, server_id=2) as listener:
        listener.register("ratelimit", recorded, timeout_s=0, auth_check=True, cluster_id=1)
        settings = Settings(redis_url=redis_url, linger=0.2)
        with serving(listener), delivering(settings):
            command = ["replay", str(path), "--cluster", "1", "--redis-url", redis_url]
            assert main([*command, "--server-id", "1"]) == 0
            recorded.wait_for(4, 1)
    assert recorded.seen == [(1, 1), (4, 1)]
    out = capsys.readouterr().out
    assert "Sent 2 packets" in out
    assert "cluster 1, where 1 other node is up" in out
    assert "Left out 2" in out


def test_replay_of_more_than_the_buffer_sends_all_in_order(
    redis_url: str, redis_client: redis.Redis, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for machine_id in (1, 2):
        put_node(redis_client, make_node(machine_id, port=free_port()))
    path = record(tmp_path / "a", *((0, packet_of(number, 2)) for number in range(5000)))
    command = ["replay", str(path), "--cluster", "1", "--speed", "max", "--redis-url", redis_url]
    assert main([*command, "--server-id", "1", "--set", "post_buffer=65536"]) == 0
    assert "Sent 5000 packets" in capsys.readouterr().out.replace(",", "")
    data = b"".join(fields[b"frames"] for _, fields in entries(redis_client, keys.log(1)))
    assert [packet.type for packet in FrameDecoder().feed(data)] == list(range(5000))


def test_replay_without_redis_fails_after_a_bounded_wait(
    stop: StopFlag, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replay, "TAKING_S", 1.0)
    away = Settings(redis_url=f"redis://127.0.0.1:{free_port()}")
    with Clusterer(1, settings=away) as instance:
        posts = replay.ClusterPosts(instance.post, instance.flush, ClusterKey(1, PROTO_BIN), stop)
        posts.send([packet_of(1)])
        with pytest.raises(StateUnavailable, match="Redis has not taken all packets for 1"):
            posts.finish()


def test_replay_leaves_out_what_crashes_a_node_and_names_it(
    listener: Listener, port: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recorded = Recorded()
    listener.register("ratelimit", recorded, timeout_s=0, auth_check=True, cluster_id=1)
    unnamed = Packet("ratelimit", 0, 2, bytes(16))
    path = record(tmp_path / "a", (0, packet_of(1)), (0, unnamed), (0, unnamed), (0, packet_of(2)))
    with serving(listener):
        to = ["--to", f"127.0.0.1:{port}", "--bind", "127.0.0.2"]
        assert main(["replay", str(path), *to]) == 0
        recorded.wait_for(2, 2)
    assert recorded.seen == [(1, 2), (2, 2)]
    out = capsys.readouterr().out
    assert "Sent 2 packets" in out
    assert "Left out 2: OpenSIPS 2.2.8 crashes" in out
    assert "packet 2: ratelimit packet of type 0 (pipe counters): field 'name' of pipe 1" in out


def test_replay_as_a_machine_without_a_row_is_refused(
    redis_url: str, redis_client: redis.Redis, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its packets would wait for ever: workers deliver for machines whose address is theirs."""
    put_node(redis_client, make_node(1))
    path = record(tmp_path / "a", (0, packet_of(1, 9)))
    command = ["replay", str(path), "--redis-url", redis_url, "--server-id", "9", "--cluster"]
    assert main([*command, "1"]) == 1
    assert "cluster 1:bin has no node 9 (server_id)" in capsys.readouterr().err
    assert main([*command, "7"]) == 1
    assert "no node of cluster 7:bin" in capsys.readouterr().err
    assert main([*command, "1", "--set", "opensips_3_clusters=1"]) == 1
    assert "cluster 1:bin is one of OpenSIPS 3.x" in capsys.readouterr().err
    assert redis_client.keys("clusterer:log:*") == []


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([], 2, "either --to or --cluster"),
        (["--to", "127.0.0.1:1", "--cluster", "1"], 2, "either --to or --cluster"),
        (["--cluster", "1", "--as", "2"], 2, "--to only"),
        (["--to", "127.0.0.1:99999"], 2, "99999"),
        (["--to", "127.0.0.1:1", "--speed", "0"], 2, "max"),
        (["--to", "127.0.0.1:1", "--speed", "nan"], 2, "max"),
        (["--to", "127.0.0.1:1"], 1, "127.0.0.1 port 1: cannot connect: Connection refused"),
        (["--to", "127.0.0.1:1", "--bind", "192.0.2.1"], 1, "from 192.0.2.1"),
        (["--cluster", "1"], 1, "server_id is not set"),
    ],
)
def test_replay_says_what_is_wrong(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    code: int,
    message: str,
) -> None:
    path = record(tmp_path / "a", (0, packet_of(1)))
    assert main(["replay", str(path), *arguments]) == code
    assert message in capsys.readouterr().err


@pytest.fixture
def stop() -> Iterator[StopFlag]:
    made = StopFlag()
    yield made
    made.close()


@contextmanager
def deaf_node() -> Iterator[NodeConnection]:
    """A node that has taken a packet and will not read it; send_timeout is 0.1 s."""
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        NodeConnection("127.0.0.1", server.getsockname()[1], 0.1) as node,
    ):
        node.send([packet_of(1)])
        yield node


def test_replay_tells_when_the_node_does_not_read_everything(
    stop: StopFlag, caplog: pytest.LogCaptureFixture
) -> None:
    with deaf_node() as node, pytest.raises(PeerUnreachable, match=r"confirm .* for 0\.[5-9]"):
        node.finish(stop, reading_s=0.5)
    assert sum("replay waits" in line for line in caplog.messages) == 1


def test_replay_stopped_waits_at_most_send_timeout(
    stop: StopFlag,
) -> None:
    stop.set()
    with deaf_node() as node, pytest.raises(PeerUnreachable, match="did not confirm"):
        node.finish(stop)


def test_replay_waits_while_the_node_reads_what_its_kernel_holds(stop: StopFlag) -> None:
    """The node needs a second, ten times send_timeout, for what it has already."""
    some = [Packet("ul", 1, 2, bytes(5_000))] * 10
    with ThrottledReceiver(50_000) as slow, NodeConnection(slow.host, slow.port, 0.1) as node:
        node.send(some)
        node.finish(stop)
        assert len(slow.packets) == len(some)


@pytest.mark.slow
def test_replay_takes_its_time_with_a_node_that_reads_slowly() -> None:
    """The timeout is for a node that reads nothing."""
    big = [Packet("ul", 1, 2, bytes(60_000))] * 400
    with ThrottledReceiver(4_000_000) as slow, NodeConnection(slow.host, slow.port, 5.0) as node:
        began = time.monotonic()
        node.send(big)
        assert time.monotonic() - began > 5.0
        wait_until(lambda: len(slow.packets) == len(big))
