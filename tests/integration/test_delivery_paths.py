"""A sender sends by its own path: what other senders see of a node closes no gate of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, cast

import pytest
import redis

from clusterer.delivery import confirmations
from clusterer.delivery.failures import Failures
from clusterer.delivery.gates import Gates
from clusterer.delivery.peer import Peer
from clusterer.delivery.session import SenderSession
from clusterer.membership import Condition, Event, Node, State
from clusterer.membership.paths import GRACE_MS, Path, gate
from clusterer.settings import Settings
from clusterer.store import Cause, Directory, NodeStore, keys
from clusterer.store.badvalues import text
from clusterer.store.client import Clock
from clusterer.store.packets import PacketLog
from clusterer.store.paths import Observation, PathStore
from clusterer.store.suspicions import SuspicionStore
from tests.support.cluster import (
    CLUSTER,
    append,
    assert_accounted,
    at_rest,
    delivering,
    load,
    node,
    node_for,
    numbers,
    stat,
)
from tests.support.frames import frame
from tests.support.ports import free_port
from tests.support.processes import wait_until
from tests.support.receiver import BinReceiver

SETTINGS = {"linger": 30.0, "send_timeout": 1.0}
D = 2
"""The node that is sent to; the senders are 1 and 3."""
ELSEWHERE = 9
"""A node on another host, which has a prober in some tests; an operator has taken it down."""


class Scene:
    """A node that two senders send to."""

    def __init__(self, settings: Settings, client: redis.Redis, receiver: BinReceiver) -> None:
        self.settings = settings
        self.client = client
        self.receiver = receiver
        self.nodes, self.paths = NodeStore(settings), PathStore(settings)
        self._sent = 0

    @property
    def node(self) -> Node:
        return self.nodes.view(CLUSTER).nodes[D]

    def record(self, sender: int = 1) -> Path | None:
        return self.paths.records(sender).get(self.node.destination)

    def send(self, *packets: int, sender: int = 1) -> None:
        for number in packets:
            PacketLog(self.settings, sender).append(CLUSTER, [frame(number, sender=sender)])

    def fail(self, sender: int = 1) -> None:
        """Let an instance see a failure of its own path, as set_state(…, 2) does."""
        before = self.record(sender)
        seen = Observation(self.node, before, Event.SUSPECTED, "for a test", 0, "instance")
        self.paths.observe(sender, [seen])

    def write(self, path: Path, sender: int = 1) -> None:
        """Write a record as it is; its counter grows."""
        self.client.hset(keys.paths(sender), self.node.destination, str(path))
        self.client.hincrby(keys.PATHS, str(sender), 1_000_000)

    def skipped(self, sender: int = 1) -> int:
        return stat(self.client, D, "skipped", sender=sender)

    def wait_skipped(self, count: int, sender: int = 1) -> None:
        wait_until(lambda: self.skipped(sender) == count, message="skipped")


@pytest.fixture
def scene(settings: Settings, redis_client: redis.Redis) -> Iterator[Scene]:
    with BinReceiver() as receiver:
        rows = [node(n, host="127.0.0.1", state=State.DOWN) for n in (1, 3)]
        other = node(ELSEWHERE, host="192.0.2.9", state=State.DOWN)
        load(settings, [*rows, node_for(D, receiver), other])
        yield Scene(settings, redis_client, receiver)


@pytest.fixture
def other_host(scene: Scene) -> None:
    """Let a prober of another host be present; it says nothing."""
    name, now_ms = keys.probers(*CLUSTER), scene.paths.now_ms()
    scene.client.zadd(name, {str(ELSEWHERE): now_ms})


@contextmanager
def not_local(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let the node be on another host as far as its evidence counts."""
    with monkeypatch.context() as patched:
        patched.setattr(confirmations, "is_local", lambda _: False)
        yield


def path_events(client: redis.Redis) -> list[dict[str, str]]:
    """Return the path events of cluster 1."""
    found: Any = client.xrange(keys.path_events(1))
    return [{text(k): text(v) for k, v in fields.items()} for _, fields in found]


@pytest.mark.usefixtures("other_host")
def test_failure_beside_other_hosts_closes_own_gate_only(scene: Scene) -> None:
    scene.receiver.stop()
    with delivering(scene.settings):
        scene.send(0, 1)
        scene.wait_skipped(2)
        path = scene.record()
        assert path is not None
        assert path.condition(scene.node) is Condition.PROBING
        assert scene.node.condition is Condition.UP
        suspicion = SuspicionStore(scene.settings).all([CLUSTER])[CLUSTER][D]
        assert suspicion.asked == {ELSEWHERE}
        assert "refused" in suspicion.reason
        scene.receiver.start()
        scene.send(2)
        scene.send(3, sender=3)
        scene.receiver.wait_for_frames(1)
        scene.wait_skipped(3)
    assert numbers(scene.receiver) == [3]
    assert scene.record(sender=3) is None
    (event,) = path_events(scene.client)
    assert (event["sender"], event["machine_id"]) == ("1", str(D))
    assert (event["before"], event["after"]) == ("up", "probing")
    assert_accounted(scene.settings)


@pytest.mark.usefixtures("other_host")
def test_failure_of_connection_from_earlier_epoch_counts(scene: Scene) -> None:
    """The verdict fell and became up while the sender's connection went on."""
    with delivering(scene.settings):
        scene.send(0)
        scene.receiver.wait_for_frames(1)
        scene.nodes.observe(scene.node, Event.SEND_FAILED, Cause("test"))
        scene.nodes.command(CLUSTER, D, Event.SET_UP, Cause("test"))
        time.sleep(0.5)  # the engine reads the node's state with its log, four times a second
        scene.receiver.pause()
        frames = [frame(number, size=60_000) for number in range(1, 300)]
        append(PacketLog(scene.settings, 1), frames)
        wait_until(lambda: scene.record() is not None, message="recorded")
    reason = _present(scene.record()).reason
    assert "took nothing" in reason or "timed out" in reason, "the worker or the kernel ends it"
    assert stat(scene.client, D, "failed") == 1


@pytest.mark.usefixtures("other_host")
def test_failures_of_many_nodes_make_few_calls(scene: Scene) -> None:
    """A sender whose host is cut off from many nodes notices all of them within a moment."""
    broken = [node(n, free_port()) for n in range(101, 221)]
    load(scene.settings, [*scene.nodes.view(CLUSTER).nodes.values(), *broken])
    before = calls(scene.client)
    with delivering(scene.settings):
        scene.send(0)
        scene.receiver.wait_for_frames(1)
        wait_until(lambda: len(scene.paths.records(1)) == len(broken), message="records")
        wait_until(lambda: scene.client.hlen(keys.suspicions(*CLUSTER)) == len(broken))
        assert calls(scene.client) < before + len(broken) + 80
        nodes = scene.nodes.view(CLUSTER).nodes
        assert all(nodes[each.machine_id].state is State.UP for each in broken)
        scene.send(1)
        wait_until(lambda: stat(scene.client, 150, "skipped") == 2, message="skipped")
    assert scene.receiver.frame_count == 2
    assert_accounted(scene.settings)


def calls(client: redis.Redis, command: str = "evalsha") -> int:
    """Return how often Redis has run a command; by default, scripts by their hash."""
    found: Any = client.info("commandstats")
    return int(found[f"cmdstat_{command}"]["calls"])


def test_failure_without_other_host_is_one_of_the_node(scene: Scene) -> None:
    scene.receiver.stop()
    with delivering(scene.settings):
        scene.send(0, 1)
        scene.wait_skipped(2)
        scene.send(2, sender=3)
        scene.wait_skipped(1, sender=3)
    assert scene.node.condition is Condition.PROBING
    assert scene.node.no_tries == 1
    assert not path_events(scene.client)
    assert [stat(scene.client, D, "failed", sender=s) for s in (1, 3)] == [1, 1]


@pytest.mark.parametrize("condition", [Condition.PROBING, Condition.DISABLED])
def test_verdict_not_up_closes_no_gate(scene: Scene, condition: Condition) -> None:
    with delivering(scene.settings):
        scene.send(0)
        scene.receiver.wait_for_frames(1)
        while scene.node.condition is not condition:
            scene.nodes.observe(scene.node, _failure(scene.node), Cause("test"))
        scene.send(1, 2)
        scene.send(3, sender=3)
        scene.receiver.wait_for_frames(4)
    assert scene.node.condition is condition, "evidence of the node's own host is none"
    assert scene.skipped() == scene.skipped(sender=3) == 0


def _failure(node: Node) -> Event:
    return Event.SEND_FAILED if node.state is State.UP else Event.PROBE_FAILED


@pytest.mark.parametrize("failed_attempts", [1, 3])
@pytest.mark.parametrize("connected", [False, True])
def test_attempt_that_works_lifts_the_verdict(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, failed_attempts: int, *, connected: bool
) -> None:
    after = replace(scene.node, failed_attempts=failed_attempts)
    scene.nodes.replace(scene.node, after, "edited", Cause("test"))
    with not_local(monkeypatch), delivering(scene.settings):
        if connected:
            scene.send(0)
            scene.receiver.wait_for_frames(1)
        scene.nodes.observe(scene.node, Event.SEND_FAILED, Cause("test"))
        time.sleep(0.3)  # the engine reads the node's state with its log, four times a second
        assert scene.node.state is State.PROBING, "an idle connection proves nothing"
        scene.send(1)
        wait_until(lambda: scene.node.state is State.UP, message="lifted")
    confirmed = text(scene.client.hget(keys.confirmed(*CLUSTER), str(D)) or b"")
    assert confirmed.endswith(" 1")
    assert scene.node.no_tries == 1


def test_broken_path_is_not_read_again_with_each_packet(scene: Scene) -> None:
    broken = node(101, free_port())
    load(scene.settings, [*scene.nodes.view(CLUSTER).nodes.values(), broken])
    seen = scene.nodes.view(CLUSTER).nodes[broken.machine_id]
    scene.paths.observe(1, [Observation(seen, None, Event.SUSPECTED, "for a test", 0, "test")])
    with delivering(scene.settings):
        scene.send(0)
        scene.receiver.wait_for_frames(1)
        before = calls(scene.client, "hgetall")
        for number in range(1, 51):
            scene.send(number)
            scene.receiver.wait_for_frames(number + 1)
        assert calls(scene.client, "hgetall") < before + 25
    assert_accounted(scene.settings)


def test_record_of_other_process_closes_the_gate_soon(scene: Scene) -> None:
    with delivering(scene.settings):
        scene.send(0)
        scene.receiver.wait_for_frames(1)
        scene.fail()
        time.sleep(0.5)
        scene.send(1, 2)
        scene.send(3, sender=3)
        scene.wait_skipped(2)
        scene.receiver.wait_for_frames(2)
        scene.paths.delete(1, {scene.node.destination: _present(scene.record())})
        time.sleep(0.5)
        scene.send(4)
        scene.receiver.wait_for_frames(3)
    assert sorted(numbers(scene.receiver)) == [0, 3, 4]
    assert_accounted(scene.settings)


def _present(path: Path | None) -> Path:
    assert path is not None
    return path


def test_claim_brings_the_records(scene: Scene) -> None:
    scene.fail()
    with delivering(scene.settings):
        scene.send(0, 1)
        scene.wait_skipped(2)
    assert scene.receiver.frame_count == 0
    assert_accounted(scene.settings)


def test_record_not_renewed_in_time_opens_the_gate(scene: Scene) -> None:
    scene.fail()
    path = _present(scene.record())
    with delivering(scene.settings):
        scene.send(0)
        scene.wait_skipped(1)
        scene.write(replace(path, until_ms=scene.paths.now_ms() + 1000))
        time.sleep(0.5)
        scene.send(1)
        scene.wait_skipped(2)
        time.sleep(0.9)
        scene.send(2)
        scene.receiver.wait_for_frames(1)
    assert numbers(scene.receiver) == [2]
    assert path.until_ms - path.last_ms == scene.node.duration * 1000 + GRACE_MS


@pytest.mark.usefixtures("other_host")
def test_record_is_frozen_while_verdict_is_not_up(scene: Scene) -> None:
    scene.fail()
    path = _present(scene.record())
    scene.write(replace(path, until_ms=scene.paths.now_ms() - 1000))
    scene.nodes.observe(scene.node, Event.SEND_FAILED, Cause("test"))
    with delivering(scene.settings):
        scene.send(0, 1)
        scene.wait_skipped(2)
        scene.nodes.observe(scene.node, Event.PROBE_SUCCEEDED, Cause("test"))
        scene.send(2)
        scene.receiver.wait_for_frames(1)
    assert numbers(scene.receiver) == [2]


def test_operator_up_on_node_that_is_up_opens_the_gate(scene: Scene) -> None:
    with delivering(scene.settings):
        scene.send(0)
        scene.receiver.wait_for_frames(1)
        scene.fail()
        time.sleep(0.5)
        scene.send(1)
        scene.wait_skipped(1)
        scene.nodes.command(CLUSTER, D, Event.SET_UP, Cause("test"))
        scene.send(2)
        scene.receiver.wait_for_frames(2)
    assert numbers(scene.receiver) == [0, 2]


def test_operator_down_closes_the_gates_of_all(scene: Scene) -> None:
    with delivering(scene.settings):
        scene.send(0)
        scene.send(1, sender=3)
        scene.receiver.wait_for_frames(2)
        scene.nodes.command(CLUSTER, D, Event.SET_DOWN, Cause("test"))
        scene.send(2)
        scene.send(3, sender=3)
        scene.wait_skipped(1)
        scene.wait_skipped(1, sender=3)
    assert scene.receiver.frame_count == 2


def test_replay_waits_for_the_own_path(scene: Scene) -> None:
    scene.settings = replace(scene.settings, backlog="replay", linger=0.3)
    waiting = keys.waiting(scene.settings.delivery_queue)
    scene.fail()
    with delivering(scene.settings):
        scene.send(0, 1)
        wait_until(lambda: scene.client.sismember(waiting, "1"), message="sender waits")
        scene.send(2, sender=3)
        scene.receiver.wait_for_frames(1)
        scene.nodes.command(CLUSTER, D, Event.SET_UP, Cause("test"))
        scene.send(3)
        scene.receiver.wait_for_frames(4)
        wait_until(lambda: at_rest(scene.settings), message="given back")
    assert numbers(scene.receiver) == [2, 0, 1, 3]
    assert scene.skipped() == 0


def test_record_changed_meanwhile_is_read_and_written(scene: Scene) -> None:
    """The engine's record is an old one: it takes the other one, and notes its failure again."""
    with delivering(scene.settings):
        scene.send(0)
        scene.receiver.wait_for_frames(1)
        now_ms = scene.paths.now_ms()
        scene.receiver.stop()
        up_again = Path(State.UP, 1, now_ms, now_ms + 20_000, scene.node.epoch, "earlier")
        scene.client.hset(keys.paths(1), scene.node.destination, str(up_again))
        scene.send(1)
        scene.wait_skipped(1)
    path = _present(scene.record())
    assert (path.state, path.no_tries) == (State.PROBING, 2)
    assert stat(scene.client, D, "failed") == 1


@pytest.mark.parametrize(
    "spoil",
    [
        lambda client, field: client.set(keys.PATHS, "x"),
        lambda client, field: client.hset(keys.PATHS, "1", "many"),
        lambda client, field: client.set(keys.paths(1), "x"),
        lambda client, field: client.hset(keys.paths(1), field, "broken"),
    ],
)
def test_records_that_are_unusable_stop_no_delivery(
    scene: Scene, spoil: Callable[[redis.Redis, str], object]
) -> None:
    spoil(scene.client, scene.node.destination)
    with delivering(scene.settings):
        scene.send(0)
        scene.receiver.wait_for_frames(1)
        spoil(scene.client, scene.node.destination)
        time.sleep(0.4)
        scene.send(1)
        scene.receiver.wait_for_frames(2)
        scene.receiver.stop()
        scene.send(2)
        scene.wait_skipped(1)
    path = _present(scene.record())
    assert not gate(scene.node, path, scene.paths.now_ms())


def test_failure_of_node_with_wrong_type_stops_no_delivery(scene: Scene) -> None:
    with BinReceiver() as other, delivering(scene.settings):
        load(scene.settings, [*scene.nodes.view(CLUSTER).nodes.values(), node_for(4, other)])
        scene.send(0)
        other.wait_for_frames(1)
        scene.receiver.wait_for_frames(1)
        scene.client.set(keys.node(*CLUSTER, D), "x")
        scene.receiver.stop()
        scene.send(1, 2)
        other.wait_for_frames(3)
        time.sleep(0.5)
        scene.send(3)
        other.wait_for_frames(4)
    assert numbers(other) == [0, 1, 2, 3]


class Attempt:
    """A session and a peer, as far as a failed attempt names them."""

    def __init__(self, seen: Node) -> None:
        self.peer = Peer(seen, 0, 0, guarded=False)
        self.gates = Gates({}, 0, Clock())
        self.sender = 1
        self.written: list[tuple[Peer, Path | None]] = []

    def put_paths(self, written: Iterable[tuple[Peer, Path | None]]) -> None:
        self.written += written


@pytest.mark.parametrize(
    ("change", "tries"),
    [
        ({}, 1),
        ({"description": "edited meanwhile"}, 1),
        ({"state": State.PROBING, "no_tries": 1}, 1),
        ({"state": State.DOWN}, 0),
    ],
)
def test_failure_of_node_changed_meanwhile_counts_once(
    scene: Scene, change: dict[str, Any], tries: int
) -> None:
    attempt = Attempt(scene.node)
    for name, value in change.items():
        now = scene.node
        scene.nodes.replace(now, replace(now, **{name: value}), "edited", Cause("test"))
    failures = Failures(
        scene.nodes,
        scene.paths,
        SuspicionStore(scene.settings),
        Directory(scene.nodes),
        Clock(),
    )
    failures.note(cast(SenderSession, attempt), attempt.peer, "test", time.monotonic())
    assert failures
    assert failures.report(lambda: None)
    assert not failures
    assert not failures.report(lambda: None)
    assert scene.node.no_tries == tries
    assert attempt.written == [(attempt.peer, scene.record())]
