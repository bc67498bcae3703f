"""Keys of removed nodes and queues: deleted on command, and after a time."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import redis

from clusterer import jobs
from clusterer.cli import main
from clusterer.membership import Event
from clusterer.provisioning.table import NewRow
from clusterer.services import Context
from clusterer.services.admin import forget
from clusterer.services.admin.forget import MachineInUse
from clusterer.services.periodic import sweep
from clusterer.services.table import reload
from clusterer.store import forgetting, keys
from clusterer.store.packets import PacketLog
from clusterer.store.paths import Observation, PathStore
from clusterer.store.receipts import Receipts
from clusterer.store.sessions import SessionStore
from clusterer.store.watches import Watch
from tests.support import provisioning
from tests.support.cluster import CLUSTER, take_lease
from tests.support.frames import frame
from tests.support.provisioning import contexts, events, provision, sql

QUEUE = "clusterer-delivery"
DAY_S = sweep.UNUSED_S


@pytest.fixture
def context(redis_url: str, tmp_path: Path) -> Iterator[Context]:
    """No nodes but 1 and 2 exist."""
    with contexts(redis_url=redis_url, data_dir=str(tmp_path)) as make:
        made = make()
        provision(made, provisioning.NODE_A, provisioning.NODE_B)
        reload.run(made)
        yield made


def send(context: Context, sender: int) -> None:
    """Append a packet; it stays undelivered."""
    PacketLog(context.settings, sender).append(CLUSTER, [frame(0, sender=sender)])


def deliver(context: Context, sender: int) -> None:
    """Do to the log what a worker does that delivers all of it."""
    store = SessionStore(context.settings, QUEUE, "test")
    claim = take_lease(store, sender)
    assert claim is not None
    tail, _ = store.totals(sender)
    store.release(sender, tail, tail + 1, {}, waiting=False, even_if_pending=False)


def break_path(context: Context, sender: int) -> None:
    """Have a sender that does not reach node 2."""
    node, _ = context.nodes.read(CLUSTER, 2)
    assert node is not None
    seen = Observation(node, None, Event.SEND_FAILED, "Connection refused", 0, "test")
    PathStore(context.settings, context.redis).observe(sender, [seen])


def listen(context: Context, receiver: int) -> Watch:
    """Begin and flush as an instance does."""
    receipts, watch = Receipts(context.settings), Watch(receiver, "m", "m", 1, 5000)
    receipts.begin(receiver, "run")
    assert receipts.register(watch, "run", [1, 2])
    receipts.flush(receiver, "run", {watch: {}}, age_ms=0, last_notice="0-0")
    return watch


def silence(context: Context, receiver: int, seconds: float) -> None:
    """Make an instance's last flush that old."""
    at = int((context.nodes.now() - seconds) * 1000)
    context.redis.hset(keys.modules(receiver), mapping={"begun": at, "heartbeat": at})


def of_machine(client: redis.Redis, machine_id: int) -> set[str]:
    names = {name.decode() for name in client.scan_iter("clusterer:*", count=1000)}
    return {name for name in names if f":{machine_id}" in name.removeprefix("clusterer:1:bin")}


def later(context: Context, seconds: float) -> float:
    return context.nodes.now() + seconds


# -- on command ------------------------------------------------------------------------------------


def test_forget_deletes_every_key_of_a_machine(context: Context) -> None:
    send(context, 9)
    deliver(context, 9)
    listen(context, 9)
    silence(context, 9, 60)
    context.redis.hset(keys.stats(9), "1/2/1/sent", 1)
    break_path(context, 9)
    context.redis.xadd(keys.prober_ring(9), {"cluster": "1:bin", "machine_id": 2})
    context.redis.set("clusterer:muted:9:old:1", "of a registration that is gone")
    context.redis.hset(keys.sums(9), "digest", "of a reader")
    before = of_machine(context.redis, 9)
    planned = forget.run(context, 9, by="test", dry_run=True)
    assert set(planned.keys) == before == of_machine(context.redis, 9)
    done = forget.run(context, 9, by="operator x", reason="scrapped")
    assert done.packets == 1
    assert of_machine(context.redis, 9) == set()
    assert PathStore(context.settings, context.redis).counters() == {}
    for name in (keys.SENDERS, keys.INSTANCES, keys.HANDOVERS, keys.pending(QUEUE)):
        assert not context.redis.sismember(name, "9"), name
    last = events(context)[-1]
    assert (last["event"], last["by"], last["reason"]) == ("forgotten", "operator x", "scrapped")
    assert last["machine_id"] == "9"


def test_forget_knows_every_key_of_a_sender_and_an_instance() -> None:
    functions = [function for _, function in inspect.getmembers(keys, inspect.isfunction)]
    own = {
        function(9)
        for function in functions
        if [*inspect.signature(function).parameters] in (["sender"], ["receiver"])
    }
    assert keys.sums(9) in own
    assert own <= {of(9) for of in (*forgetting._SENDER, *forgetting._INSTANCE)}


def test_forget_leaves_other_machines_alone(context: Context) -> None:
    for sender in (9, 99):
        send(context, sender)
        deliver(context, sender)
        listen(context, sender)
        silence(context, sender, 60)
        break_path(context, sender)
    before = {name for name in of_machine(context.redis, 99) if ":99" in name}
    forget.run(context, 9, by="test")
    assert {name for name in of_machine(context.redis, 99) if ":99" in name} == before
    assert context.redis.sismember(keys.SENDERS, "99")
    assert PathStore(context.settings, context.redis).counters().keys() == {99}


def undelivered(context: Context) -> int:
    send(context, 9)
    return 9


def leased(context: Context) -> int:
    send(context, 9)
    deliver(context, 9)
    context.redis.set(keys.lease(9), "worker")
    return 9


def alive(context: Context) -> int:
    listen(context, 9)
    return 9


def node_in_redis(context: Context) -> int:
    send(context, 2)
    deliver(context, 2)
    sql(context, "DELETE FROM clusterer WHERE machine_id = 2")
    return 2


def row_in_table(context: Context) -> int:
    send(context, 3)
    deliver(context, 3)
    provision(context, NewRow(7, 3, "bin:127.0.0.3:5566"))
    return 3


@pytest.mark.parametrize(
    ("prepare", "said"),
    [
        (undelivered, "1 entries of the sender's log are not delivered"),
        (leased, "a worker delivers"),
        (alive, "the instance is alive, stop the instance"),
        (node_in_redis, "cluster 1:bin has the node, run `clusterer node-remove 1 2`"),
        (row_in_table, "the table has a row of the node, run `clusterer node-remove 7 3`"),
    ],
)
def test_forget_refuses_a_machine_in_use_unless_forced(
    prepare: Callable[[Context], int], said: str, context: Context
) -> None:
    machine_id = prepare(context)
    before = set(context.redis.keys())
    with pytest.raises(MachineInUse, match=said):
        forget.run(context, machine_id, by="test")
    assert set(context.redis.keys()) == before
    forget.run(context, machine_id, by="test", force=True)
    assert not context.redis.exists(keys.log(machine_id), keys.modules(machine_id))
    assert not context.redis.sismember(keys.pending(QUEUE), str(machine_id))


def test_forget_an_unknown_machine_is_one_line(
    context: Context, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = context.settings
    words = ["--redis-url", settings.redis_url, "--data-dir", settings.data_dir]
    assert main(["forget", "77", *words]) == 1
    said = capsys.readouterr().err
    assert said == "clusterer: Redis has no data of machine_id 77\n"


def test_forgotten_sender_that_returns_begins_cleanly(context: Context) -> None:
    send(context, 9)
    deliver(context, 9)
    forget.run(context, 9, by="test")
    send(context, 9)
    claim = take_lease(SessionStore(context.settings, QUEUE, "test"), 9)
    assert claim is not None
    assert not claim.committed
    assert context.redis.xlen(keys.log(9)) == 1
    assert SessionStore(context.settings, QUEUE, "test").totals(9)[0] == 1


def test_forgotten_instance_that_runs_registers_again(context: Context) -> None:
    watch = listen(context, 9)
    forget.run(context, 9, by="test", force=True)
    receipts = Receipts(context.settings)
    flushed = receipts.flush(9, "run", {watch: {}}, age_ms=0, last_notice="0-0")
    assert flushed.state.value == 0, "the instance begins again"


# -- by itself -------------------------------------------------------------------------------------


def test_unused_sender_without_a_row_is_forgotten(context: Context) -> None:
    for sender in (1, 9):
        send(context, sender)
        deliver(context, sender)
        break_path(context, sender)
    sweep.delete_unused(context, later(context, DAY_S - 60))
    assert context.redis.sismember(keys.SENDERS, "9")
    sweep.delete_unused(context, later(context, DAY_S + 60))
    assert of_machine(context.redis, 9) == set()
    assert context.redis.sismember(keys.SENDERS, "1"), "node 1 keeps its figures"
    assert not context.redis.sismember(keys.SENDERS, "9")
    assert PathStore(context.settings, context.redis).counters().keys() == {1}


def test_unused_sender_with_packets_is_kept(context: Context) -> None:
    send(context, 9)
    store = SessionStore(context.settings, QUEUE, "test")
    assert take_lease(store, 9) is not None
    store.release(9, 0, 0, {}, waiting=False, even_if_pending=True)
    sweep.delete_unused(context, later(context, 10 * DAY_S))
    assert context.redis.xlen(keys.log(9)) == 1
    assert context.redis.sismember(keys.pending(QUEUE), "9")


def test_senders_are_kept_while_redis_has_no_cluster(context: Context) -> None:
    send(context, 9)
    deliver(context, 9)
    context.redis.delete(keys.CLUSTERS, keys.nodes(*CLUSTER))
    sweep.delete_unused(context, later(context, 10 * DAY_S))
    assert context.redis.sismember(keys.SENDERS, "9")


def test_unused_instance_is_forgotten_an_alive_one_kept(context: Context) -> None:
    for receiver in (8, 9):
        listen(context, receiver)
    silence(context, 9, DAY_S + 60)
    assert sweep.delete_unused(context) == 1
    assert of_machine(context.redis, 9) == set()
    assert context.redis.sismember(keys.INSTANCES, "8")
    assert not context.redis.sismember(keys.INSTANCES, "9")


def test_unused_queue_goes_with_its_jobs_and_junk(context: Context) -> None:
    old = "old-a"
    for queue in (QUEUE, old):
        settings = replace(context.settings, delivery_queue=queue)
        PacketLog(settings, 1).append(CLUSTER, [frame(0)])
        jobs.enqueue_delivery(queue, context.jobs_client)
    context.redis.delete(keys.pending(old))
    context.redis.rpush(f"clusterer:junk:{old}", "1 junk")
    sweep.delete_unused(context, later(context, DAY_S - 60))
    assert context.redis.sismember(keys.QUEUES, old), "used within a day"
    sweep.delete_unused(context, later(context, DAY_S + 60))
    assert context.redis.smembers(keys.QUEUES) == {QUEUE.encode()}
    assert list(context.redis.scan_iter(f"*{old}*")) == []
    assert not context.redis.sismember("rq:queues", f"rq:queue:{old}")
    assert len(list(context.redis.scan_iter("rq:job:*"))) == 1, "the other queue keeps its job"


def test_unused_queue_with_a_worker_is_kept(context: Context) -> None:
    context.redis.sadd(keys.QUEUES, QUEUE)
    context.redis.sadd(f"rq:workers:{QUEUE}", "rq:worker:w")
    context.redis.hset("rq:worker:w", "queues", QUEUE)
    sweep.delete_unused(context, later(context, 10 * DAY_S))
    assert context.redis.sismember(keys.QUEUES, QUEUE)
    context.redis.delete("rq:worker:w")  # died long ago
    sweep.delete_unused(context, later(context, 10 * DAY_S))
    assert not context.redis.sismember(keys.QUEUES, QUEUE)


@pytest.mark.parametrize("kind", ["string", "list"])
def test_wrong_values_keep_no_other_machine(kind: str, context: Context) -> None:
    for sender in (8, 9):
        send(context, sender)
        deliver(context, sender)
    context.redis.delete(keys.log(8), keys.modules(8))
    for name in (keys.log(8), keys.modules(8), keys.ring("odd")):
        _ = context.redis.set(name, "x") if kind == "string" else context.redis.rpush(name, "x")
    context.redis.sadd(keys.QUEUES, "odd")
    context.redis.sadd(keys.SENDERS, "junk", "-1")
    context.redis.sadd(keys.QUEUES, "odd2")
    context.redis.set("rq:workers:odd2", "x")
    sweep.delete_unused(context, later(context, DAY_S + 60))
    assert not context.redis.sismember(keys.SENDERS, "9")
    assert not context.redis.sismember(keys.QUEUES, "odd2")


def test_sweep_looks_for_what_is_unused(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    context.redis.sadd(keys.QUEUES, "old-a")
    monkeypatch.setattr(sweep, "UNUSED_EVERY_S", 0.0)
    sweep.run(context)
    assert not context.redis.sismember(keys.QUEUES, "old-a")
