"""Path records in Redis: observed, changed, forgotten, and void with each epoch of a node."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import redis

from clusterer.membership import Event, State
from clusterer.membership.paths import Path, gate
from clusterer.membership.suspicions import VOID_MS
from clusterer.membership.views import ClusterKey
from clusterer.settings import Settings
from clusterer.store import Cause, keys
from clusterer.store.badvalues import collected
from clusterer.store.paths import AT_ONCE, Observation, Reply
from tests.support.cluster import CLUSTER, load, node
from tests.support.paths import EXHAUSTED, WHY, Paths


@pytest.fixture
def world(settings: Settings, redis_client: redis.Redis) -> Paths:
    made = Paths(settings, redis_client)
    made.load()
    return made


def test_observe_first_failure_writes_record_and_asks(world: Paths) -> None:
    assert world.paths.counters() == {}
    seen = world.seen()
    ((reply, path),) = world.paths.observe(1, [seen])
    assert reply is Reply.ASK
    assert path is not None
    assert path == Path(State.PROBING, 1, path.last_ms, path.until_ms, seen.node.epoch, WHY)
    assert world.paths.records(1) == {seen.node.destination: path}
    assert not gate(seen.node, path, path.last_ms)
    assert world.paths.counters().keys() == {1}
    assert world.events() == [], "the verdict may have the event"


def other_epoch(world: Paths, seen: Observation) -> None:
    world.client.hset(keys.node(*CLUSTER, 2), "epoch", seen.node.epoch + 1)


def other_address(world: Paths, seen: Observation) -> None:
    world.client.hset(keys.node(*CLUSTER, 2), "generation", seen.node.generation + 1)


def removed(world: Paths, seen: Observation) -> None:
    world.client.delete(keys.node(*CLUSTER, 2))


def other_record(world: Paths, seen: Observation) -> None:
    world.paths.observe(1, [replace(seen, reason="another worker was first")])


@pytest.mark.parametrize("change", [other_epoch, other_address, removed, other_record])
def test_observe_after_change_writes_nothing(
    change: Callable[[Paths, Observation], None], world: Paths
) -> None:
    seen = world.seen()
    change(world, seen)
    before = world.client.hgetall(keys.paths(1)), world.paths.counters()
    ((reply, path),) = world.paths.observe(1, [seen])
    assert reply is Reply.CHANGED
    assert path == next(iter(world.paths.records(1).values()), None)
    assert (world.client.hgetall(keys.paths(1)), world.paths.counters()) == before


def confirmed_before(world: Paths, now_ms: int) -> None:
    world.confirm(now_ms - 1)


def confirmed_since(world: Paths, now_ms: int) -> None:
    world.confirm(now_ms)


def confirmed_ahead(world: Paths, now_ms: int) -> None:
    """The clock was set back."""
    world.confirm(now_ms + 60_000)


def open_now(world: Paths, now_ms: int) -> None:
    world.put(f"{now_ms} {world.node().version} suspect 3 - 1 0 why not")


def open_of_another_version(world: Paths, now_ms: int) -> None:
    world.put(f"{now_ms} {world.node().version - 1} suspect 3 - 1 0")


def open_too_long(world: Paths, now_ms: int) -> None:
    world.put(f"{now_ms - VOID_MS} {world.node().version} suspect 3 - 1 0")


def open_ahead(world: Paths, now_ms: int) -> None:
    world.put(f"{now_ms + 60_000} {world.node().version} suspect 3 - 1 0")


def open_nonsense(world: Paths, now_ms: int) -> None:
    world.put("oops")


def probing(world: Paths, now_ms: int) -> None:
    assert world.commit(Event.SUSPECTED)


@pytest.mark.parametrize(
    ("prepare", "expected"),
    [
        (confirmed_before, Reply.ASK),
        (confirmed_since, Reply.CONFIRMED),
        (confirmed_ahead, Reply.ASK),
        (open_now, Reply.OPEN),
        (open_of_another_version, Reply.ASK),
        (open_too_long, Reply.ASK),
        (open_ahead, Reply.ASK),
        (open_nonsense, Reply.ASK),
        (probing, Reply.NOT_UP),
    ],
)
def test_observe_reply_depends_on_verdict_and_suspicion(
    prepare: Callable[[Paths, int], None], expected: Reply, world: Paths
) -> None:
    now_ms = world.paths.now_ms()
    prepare(world, now_ms)
    assert world.fail(began_ms=now_ms) is expected
    assert world.record() is not None
    told = [("1", "up", "probing", WHY)]
    assert world.events() == (told if expected in {Reply.OPEN, Reply.CONFIRMED} else [])


def test_observe_success_ends_record_without_asking(world: Paths) -> None:
    for _ in range(3):
        world.fail()
    worked = world.seen(event=Event.PROBE_SUCCEEDED)
    ((reply, path),) = world.paths.observe(1, [worked])
    assert (reply, path) == (Reply.CONFIRMED, None)
    assert world.paths.counters() == {}
    assert not world.client.exists(keys.paths(1))
    assert world.events() == [("1", "disabled", "up", WHY)]


def test_observe_many_writes_all_in_calls_of_bounded_size(
    settings: Settings, redis_client: redis.Redis
) -> None:
    count = 2 * AT_ONCE + 1
    load(settings, [node(i) for i in range(1, count + 1)])
    world = Paths(settings, redis_client)
    nodes = world.views()[CLUSTER].nodes.values()
    seen = [Observation(each, None, Event.SEND_FAILED, WHY, 0, "test") for each in nodes]
    calls = redis_client.info("commandstats")["cmdstat_evalsha"]["calls"]
    replies = world.paths.observe(1, seen)
    after = redis_client.info("commandstats")["cmdstat_evalsha"]["calls"]
    assert {reply for reply, _ in replies} == {Reply.ASK}
    assert len(world.paths.records(1)) == count
    assert after - calls <= 3


def test_observe_same_node_twice_counts_once(world: Paths) -> None:
    seen = world.seen()
    replies = [reply for reply, _ in world.paths.observe(1, [seen, seen])]
    assert replies == [Reply.ASK, Reply.CHANGED]
    record = world.record()
    assert record is not None
    assert record.no_tries == 1


def test_records_of_many_senders_are_read_with_counters(world: Paths) -> None:
    world.fail(1)
    world.fail(3)
    found = world.paths.all_records([1, 3, 4])
    counters = world.paths.counters()
    assert {sender: records.counter for sender, records in found.items()} == counters | {4: 0}
    assert [len(found[sender]) for sender in (1, 3, 4)] == [1, 1, 0]
    assert found[1].now_ms <= world.paths.now_ms()


def test_counter_is_never_used_twice(world: Paths) -> None:
    used = []
    for _ in range(5):
        world.fail()
        used.append(world.paths.counters()[1])
        world.paths.delete(1, world.paths.records(1))
        assert world.paths.counters() == {}
    ahead = used[-1] + 10**12
    world.fail()
    world.client.hset(keys.PATHS, "1", ahead)
    world.fail()
    used += [ahead, world.paths.counters()[1]]
    assert used == sorted(set(used))


# -- change and delete -----------------------------------------------------------------------------


def test_change_writes_record_as_it_was_read_only(world: Paths) -> None:
    world.fail()
    seen, before = world.node(), world.record()
    assert before is not None
    later = replace(before, last_ms=before.last_ms + 5)
    assert world.paths.change(1, [(seen, before, later, "check failed")]) == [True]
    assert world.record() == later
    assert world.paths.change(1, [(seen, before, None, "check succeeded")]) == [False]
    assert world.events() == [], "the path is probing as before"
    assert world.paths.change(1, [(seen, later, None, "check succeeded")], by="x") == [True]
    assert world.record() is None
    assert world.events() == [("1", "probing", "up", "")]


def test_change_tells_readers_by_counter(world: Paths) -> None:
    world.fail()
    seen, before, counted = world.node(), world.record(), world.paths.counters()[1]
    assert before is not None
    world.paths.change(1, [(seen, before, replace(before, state=State.UP), "check succeeded")])
    assert world.paths.counters()[1] > counted
    counted = world.paths.counters()[1]
    assert world.paths.change(1, [(seen, before, None, "lost")]) == [False]
    assert world.paths.counters()[1] == counted, "nothing changed"


def test_delete_leaves_record_that_changed(world: Paths) -> None:
    world.fail()
    before = dict(world.paths.records(1))
    world.fail()
    world.paths.delete(1, before)
    record = world.record()
    assert record is not None
    assert record.no_tries == 2
    world.paths.delete(1, world.paths.records(1))
    assert world.paths.counters() == {}


# -- epochs ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "event", "renewed"),
    [
        ([], Event.SUSPECTED, False),
        ([], Event.SET_DOWN, False),
        ([Event.SUSPECTED], Event.PROBE_FAILED, False),
        ([Event.SUSPECTED], Event.PROBE_SUCCEEDED, True),
        ([Event.SUSPECTED], Event.CONFIRMED, True),
        ([Event.SUSPECTED] * 3, Event.CONFIRMED, True),
        ([Event.SUSPECTED], Event.SET_UP, True),
        ([Event.SET_DOWN], Event.SET_UP, True),
    ],
)
def test_epoch_begins_when_verdict_becomes_up(
    before: list[Event], event: Event, renewed: bool, world: Paths
) -> None:
    first = world.node().epoch
    for each in before:
        world.commit(each)
    after = world.commit(event)
    assert after is not None
    assert after.epoch == (after.version if renewed else first)


def test_epoch_begins_after_duration_of_disabled_node(world: Paths) -> None:
    world.load(duration=0, failed_attempts=1)
    world.commit(Event.SUSPECTED)
    after = world.commit(Event.DURATION_ELAPSED)
    assert after is not None
    assert (after.state, after.epoch) == (State.UP, after.version)


def test_set_up_on_up_node_opens_gates_of_broken_paths(world: Paths) -> None:
    world.fail(1)
    world.fail(3)
    seen = world.nodes.command(CLUSTER, 2, Event.SET_UP, Cause("operator"))
    assert seen.epoch == seen.version
    for sender in (1, 3):
        assert gate(seen, world.record(sender), world.paths.now_ms())


def test_set_up_on_up_node_without_records_changes_nothing(world: Paths) -> None:
    before = world.node()
    world.fail(1)
    assert (
        world.nodes.command(CLUSTER, 3, Event.SET_UP, Cause("operator")).version
        < before.version + 2
    )
    world.paths.delete(1, world.paths.records(1))
    assert world.nodes.command(CLUSTER, 2, Event.SET_UP, Cause("operator")) == before


@pytest.mark.parametrize(
    ("changes", "renewed"), [({"description": "x"}, False), ({"host": 9}, True)]
)
def test_reload_begins_epoch_of_moved_node(
    changes: dict[str, Any], renewed: bool, world: Paths
) -> None:
    before = world.node()
    world.load(**changes)
    after = world.node()
    assert after.version > before.version
    assert after.epoch == (after.version if renewed else before.epoch)


def test_reload_begins_epoch_of_node_set_up_in_table(world: Paths) -> None:
    world.commit(Event.SET_DOWN)
    world.load()
    assert (world.node().state, world.node().epoch) == (State.UP, world.node().version)


def test_reload_forgets_paths_of_node_that_is_gone(world: Paths) -> None:
    world.fail(1)
    world.paths.observe(3, [world.seen(3), world.seen(3, machine_id=4)])
    world.confirm(1)
    world.put("1 1 suspect 3 - 1 0")
    world.load(host=9)
    assert world.paths.counters().keys() == {3}
    assert [path.no_tries for path in world.paths.records(3).values()] == [1]
    assert world.suspicion() is None
    assert not world.client.exists(keys.confirmed(*CLUSTER))


def test_reload_without_row_of_other_protocol_keeps_destination(
    world: Paths, settings: Settings
) -> None:
    """The rows of a machine that one reload brings have the same generation in each cluster."""
    world.fail()
    bin_node, other = world.node(), ClusterKey(1, "udp")
    load(settings, [replace(bin_node, protocol="udp", url="udp:10.0.0.2:1")], other)
    world.client.hset(keys.node(*other, 2), "generation", bin_node.generation)
    world.client.sadd(keys.SENDERS, 1)
    world.client.hset(keys.committed(1), bin_node.destination, 7)
    load(settings, [], other)
    assert world.record() is not None
    assert world.client.hget(keys.committed(1), bin_node.destination) == b"7"


def test_reload_ends_suspicion_of_changed_node(world: Paths) -> None:
    world.confirm(1)
    world.put("1 1 suspect 3 - 1 0")
    world.load(description="x")
    assert world.suspicion() is None
    assert world.client.exists(keys.confirmed(*CLUSTER))


def test_reload_without_nodes_leaves_no_key_of_cluster(world: Paths, settings: Settings) -> None:
    world.arrive(1, 3)
    world.fail()
    world.open()
    world.confirm(1)
    load(settings, [])
    left = world.client.keys(f"clusterer:{CLUSTER}:*")
    assert left == [keys.version(*CLUSTER).encode()]
    assert world.paths.counters() == {}
    world.arrive(1)
    assert not world.client.exists(keys.probers(*CLUSTER)), "no process would remove it"


# -- values that cannot be used --------------------------------------------------------------------

BAD = ["oops", "0 1 1 1 1", "2 1 1 1", "2 -1 1 1 1", "2 01 1 1 1", "2 1 1 1 1 ", b"2 1 1 1 1 \xff"]


@pytest.mark.parametrize("value", BAD)
def test_bad_record_is_named_and_replaced(value: str | bytes, world: Paths) -> None:
    world.paths.observe(1, [world.seen(machine_id=4)])
    field = world.node().destination
    world.client.hset(keys.paths(1), field, value)
    with collected() as problems:
        assert len(world.paths.records(1)) == 1
    assert [(bad.key, bad.place) for bad in problems] == [(keys.paths(1), f"field {field}")]
    with collected():
        assert world.fail() is Reply.CHANGED
    assert world.fail() is Reply.ASK
    assert world.record() is not None


@pytest.mark.parametrize("name", [keys.PATHS, keys.paths(1)])
def test_wrong_type_is_named_and_replaced(name: str, world: Paths) -> None:
    world.client.set(name, "oops")
    with collected() as problems:
        assert world.paths.records(1) == {}
        assert world.paths.counters() == {}
        assert world.fail() is Reply.ASK
    assert {bad.key for bad in problems} == {name}
    assert world.record() is not None
    assert world.paths.counters().keys() == {1}


@pytest.mark.parametrize(
    "name", [keys.suspicions(*CLUSTER), keys.confirmed(*CLUSTER), keys.path_events(1)]
)
def test_observe_replaces_wrong_type_beside_record(name: str, world: Paths) -> None:
    world.client.set(name, "oops")
    with collected() as problems:
        now_ms = world.paths.now_ms()
        if name == keys.path_events(1):
            open_now(world, now_ms)
        world.fail(began_ms=now_ms)
    assert {bad.key for bad in problems} == {name}
    assert world.client.type(name) in (b"none", b"stream")


def test_counters_of_wrong_values_are_named(world: Paths) -> None:
    world.client.hset(keys.PATHS, mapping={"1": "x", "oops": "1", "3": "7"})
    with collected() as problems:
        assert world.paths.counters() == {1: 0, 3: 7}
    assert {bad.key for bad in problems} == {keys.PATHS}
    world.fail()
    assert world.paths.counters()[1] > 0


@pytest.mark.parametrize("epoch", ["oops", "9" * 17, "9" * 400])
def test_bad_epoch_of_node_keeps_failures_counted(epoch: str, world: Paths) -> None:
    seen = world.seen()
    world.client.hset(keys.node(*CLUSTER, 2), "epoch", epoch)
    with collected():
        ((reply, _),) = world.paths.observe(1, [seen])
        assert reply is Reply.ASK
        world.load()
    assert world.node().epoch == world.node().version


def test_epoch_is_compared_as_a_number(world: Paths) -> None:
    world.client.hset(keys.node(*CLUSTER, 2), "epoch", f"0{world.node().epoch}")
    assert world.fail() is Reply.ASK


def test_record_whose_field_is_no_text_is_left_out(world: Paths) -> None:
    world.fail()
    world.client.hset(keys.paths(1), b"1/2/\xff", str(world.record()))
    with collected() as problems:
        assert world.paths.records(1).keys() == {world.node().destination}
    assert [bad.key for bad in problems] == [keys.paths(1)]


def test_exhausted_path_events_begin_again(world: Paths) -> None:
    world.client.xadd(keys.path_events(1), {"x": 1}, id=EXHAUSTED)
    now_ms = world.paths.now_ms()
    open_now(world, now_ms)
    with collected() as problems:
        assert world.fail(began_ms=now_ms) is Reply.OPEN
    assert {bad.key for bad in problems} == {keys.path_events(1)}
    assert len(world.events()) == 1


def test_node_of_earlier_release_has_epoch_0(world: Paths) -> None:
    world.client.hdel(keys.node(*CLUSTER, 2), "epoch")
    assert world.node().epoch == 0
    assert world.fail() is Reply.ASK
    record = world.record()
    assert record is not None
    assert record.epoch == 0
