"""Suspicions in Redis: opened once, answered by those that were asked, ended by one ack."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import redis

from clusterer.membership import Condition, Event
from clusterer.membership.suspicions import (
    EVIDENCE_MS,
    VOID_MS,
    Kind,
    Outcome,
    Suspicion,
    choose_asked,
    outcome,
)
from clusterer.settings import Settings
from clusterer.store import Cause, keys
from clusterer.store.badvalues import collected
from clusterer.store.paths import Reply
from clusterer.store.suspicions import Confirmation, Opened
from tests.support.cluster import CLUSTER, load, node
from tests.support.paths import EXHAUSTED, WHY, Paths
from tests.support.processes import EVENTUALLY_S

RING = keys.probers_ring(*CLUSTER)


@pytest.fixture
def world(settings: Settings, redis_client: redis.Redis) -> Paths:
    made = Paths(settings, redis_client)
    made.load()
    return made


@pytest.fixture
def suspected(world: Paths) -> Suspicion:
    """A suspicion of node 2: the probers 1 and 3 are asked, 4 and 5 are present too."""
    world.arrive(1, 3, 4, 5)
    found = Suspicion(
        world.paths.now_ms(),
        world.node().version,
        Kind.SUSPECT,
        frozenset({1, 3}),
        frozenset(),
        all_asked=False,
        reason=WHY,
    )
    world.put(found)
    return found


def rung(client: redis.Redis) -> set[int]:
    return {prober for prober in range(1, 6) if client.exists(keys.prober_ring(prober))}


def test_open_asks_three_others_and_asking_one(world: Paths) -> None:
    world.arrive(1, 2, 3, 4, 5)
    assert world.open() is Opened.ASKED
    found = world.suspicion()
    assert found is not None
    assert found.asked == {1, 3, 4, 5}
    assert (found.version, found.kind, found.reason) == (world.node().version, Kind.SUSPECT, WHY)
    assert (found.all_asked, found.wide, found.nacks) == (True, False, frozenset())
    assert rung(world.client) == {1, 3, 4, 5}
    assert not world.client.exists(RING)
    assert world.open() is Opened.ALREADY
    assert world.suspicion() == found


def test_open_asks_prober_that_confirmed_last(world: Paths) -> None:
    world.arrive(1, 3, 4, 5)
    load(world.settings, [node(i, host=f"10.0.0.{i}") for i in range(1, 9)])
    world.arrive(6, 7, 8)
    for who in (4, 7):
        world.client.hset(keys.confirmed(*CLUSTER), "2", f"1 {who}")
        assert world.open() is Opened.ASKED
        found = world.suspicion()
        assert found is not None
        assert {1, who} < found.asked
        assert not found.all_asked
        assert world.nodes.end_suspicion(CLUSTER, 2, found)


def test_open_rings_no_prober_that_left_meanwhile(
    world: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise its ring stays for ever: the prober deleted it when the prober left."""
    world.arrive(1, 3, 4)

    def leave(*arguments: Any, **named: Any) -> Any:
        assert world.probers.leave(3, "sip3", [CLUSTER])
        return choose_asked(*arguments, **named)

    monkeypatch.setattr("clusterer.store.suspicions.choose_asked", leave)
    assert world.open() is Opened.ASKED
    found = world.suspicion()
    assert found is not None
    assert found.asked == {1, 3, 4}
    assert rung(world.client) == {1, 4}


@pytest.mark.parametrize("asking", [1, None])
def test_open_without_prober_of_another_host_is_alone(asking: int | None, world: Paths) -> None:
    world.arrive(*{2, asking or 2})
    assert world.open(asking=asking) is Opened.ALONE
    assert world.suspicion() is None


def test_open_on_one_host_of_loopback_is_alone(
    settings: Settings, redis_client: redis.Redis
) -> None:
    load(settings, [node(1), node(2, host="127.0.0.2"), node(3, host="::1")])
    world = Paths(settings, redis_client)
    world.arrive(1, 3)
    assert world.open(asking=None) is Opened.ALONE


def test_open_does_not_ask_host_of_node_by_another_cluster(world: Paths) -> None:
    """Prober 3 is on the host of node 2: node 3 has the same address in cluster 2."""
    other = CLUSTER._replace(cluster_id=2)
    load(world.settings, [node(3, host="10.0.0.2", cluster_id=2)], other)
    world.arrive(1, 3)
    assert world.open() is Opened.ALONE
    world.arrive(4)
    assert world.open() is Opened.ASKED
    found = world.suspicion()
    assert found is not None
    assert found.asked == {1, 4}


@pytest.mark.parametrize(
    ("kind", "events", "expected"),
    [
        (Kind.SUSPECT, [], Opened.ASKED),
        (Kind.SUSPECT, [Event.SUSPECTED], Opened.CHANGED),
        (Kind.SUSPECT, [Event.SET_DOWN], Opened.CHANGED),
        (Kind.PROBE, [], Opened.CHANGED),
        (Kind.PROBE, [Event.SUSPECTED], Opened.ASKED),
        (Kind.PROBE, [Event.SUSPECTED] * 3, Opened.ASKED),
        (Kind.PROBE, [Event.SET_DOWN], Opened.CHANGED),
    ],
)
def test_open_depends_on_verdict(
    kind: Kind, events: list[Event], expected: Opened, world: Paths
) -> None:
    world.arrive(1, 3)
    for event in events:
        world.commit(event)
    assert world.open(kind) is expected


def test_open_of_node_that_is_another_one_does_nothing(world: Paths) -> None:
    world.arrive(1, 3)
    before = world.node()
    world.load(host=9)
    assert world.open(node=before) is Opened.CHANGED
    world.client.delete(keys.node(*CLUSTER, 2))
    assert world.open(node=before) is Opened.CHANGED


def test_open_of_node_seen_at_earlier_version_is_of_current_one(world: Paths) -> None:
    world.arrive(1, 3)
    before = world.node()
    world.load(description="edited")
    assert world.open(node=before) is Opened.ASKED
    found = world.suspicion()
    assert found is not None
    assert found.version == world.node().version > before.version


def test_open_adds_event_of_path_unless_alone(world: Paths) -> None:
    def opened() -> Opened:
        seen = world.seen()
        assert world.paths.observe(1, [seen])[0][0] is Reply.ASK
        return world.suspicions.open(
            seen.node,
            Kind.SUSPECT,
            asking=1,
            reason=WHY,
            views=world.views(),
            observation=(1, seen),
        )

    world.arrive(1)
    assert opened() is Opened.ALONE
    assert world.events() == []
    world.paths.delete(1, world.paths.records(1))
    world.arrive(3)
    assert opened() is Opened.ASKED
    assert world.events() == [("1", "up", "probing", WHY)]


def test_open_of_node_changed_meanwhile_asks(world: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    """An edit of the table, say, between the read and the commit."""
    world.arrive(1, 3)
    seen, edits = world.seen(), ["twice", "once"]

    def choose_after_edit(*found: Any, **more: Any) -> Any:
        if edits:
            before = world.node()
            after = replace(before, description=edits.pop())
            world.nodes.replace(before, after, "edited", Cause("test"))
        return choose_asked(*found, **more)

    monkeypatch.setattr("clusterer.store.suspicions.choose_asked", choose_after_edit)
    assert world.paths.observe(1, [seen])[0][0] is Reply.ASK
    opened = world.suspicions.open(
        seen.node,
        Kind.SUSPECT,
        asking=1,
        reason=WHY,
        views=world.views(),
        observation=(1, seen),
    )
    assert opened is Opened.ASKED
    found = world.suspicion()
    assert found is not None
    assert found.version == world.node().version
    assert world.events() == [("1", "up", "probing", WHY)]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda now, version: f"{now - VOID_MS} {version} suspect 3 - 1 0",
        lambda now, version: f"{now + 60_000} {version} suspect 3 - 1 0",
        lambda now, version: f"{now} {version - 1} suspect 3 - 1 0",
        lambda now, version: "oops",
    ],
)
def test_open_replaces_void_suspicion(spoil: Callable[[int, int], str], world: Paths) -> None:
    world.arrive(1, 3)
    world.put(spoil(world.paths.now_ms(), world.node().version))
    assert world.open() is Opened.ASKED


# -- answers ---------------------------------------------------------------------------------------


def test_nack_of_all_asked_asks_all_others(world: Paths, suspected: Suspicion) -> None:
    now_ms = suspected.since_ms
    first = world.suspicions.nack(CLUSTER, 2, suspected, 3)
    assert first == replace(suspected, nacks=frozenset({3}))
    assert world.suspicions.nack(CLUSTER, 2, suspected, 3) == first, "said twice"
    assert world.suspicions.nack(CLUSTER, 2, suspected, 4) == first, "was not asked"
    assert outcome(first, now_ms) is Outcome.WAIT
    second = world.suspicions.nack(CLUSTER, 2, suspected, 1)
    assert second == world.suspicion() == replace(suspected, nacks=frozenset({1, 3}))
    assert outcome(second, now_ms) is Outcome.WIDEN
    assert world.suspicions.widen(CLUSTER, 2, second)
    assert not world.suspicions.widen(CLUSTER, 2, second)
    assert world.client.xlen(RING) == 1
    assert world.suspicion() == replace(second, wide=True)


def test_nack_of_prober_whose_number_is_part_of_another(world: Paths, suspected: Suspicion) -> None:
    world.put(replace(suspected, asked=frozenset({13, 31}), nacks=frozenset({13})))
    for prober in (1, 3):
        found = world.suspicions.nack(CLUSTER, 2, suspected, prober)
        assert found is not None
        assert found.nacks == {13}


@pytest.mark.parametrize("reason", ["", "a", "a b  c", "100 % of\nit"])
def test_answers_keep_reason(reason: str, world: Paths, suspected: Suspicion) -> None:
    world.put(replace(suspected, reason=reason))
    found = world.suspicions.nack(CLUSTER, 2, suspected, 3)
    assert found is not None
    assert found.reason == reason
    assert world.suspicions.widen(CLUSTER, 2, found)
    assert world.suspicion() == replace(found, wide=True)


def test_answers_to_ended_suspicion_change_nothing(world: Paths, suspected: Suspicion) -> None:
    another = replace(suspected, since_ms=suspected.since_ms + 1)
    for there in (None, another):
        world.client.delete(keys.suspicions(*CLUSTER))
        if there:
            world.put(there)
        assert world.suspicions.nack(CLUSTER, 2, suspected, 3) is None
        assert not world.suspicions.widen(CLUSTER, 2, suspected)
        assert not world.nodes.end_suspicion(CLUSTER, 2, suspected)
        assert world.nodes.observe(world.node(), Event.SEND_FAILED, Cause("x"), suspected) is None
        assert world.suspicion() == there
    assert world.node().condition is Condition.UP


def test_end_leaves_node_as_it_is(world: Paths, suspected: Suspicion) -> None:
    before = world.node()
    assert world.nodes.end_suspicion(CLUSTER, 2, suspected)
    assert world.suspicion() is None
    assert world.node() == before


# -- what a suspicion leads to ---------------------------------------------------------------------


def test_fall_ends_suspicion_and_is_counted_once(world: Paths, suspected: Suspicion) -> None:
    after = world.commit(Event.SEND_FAILED, suspected)
    assert after is not None
    assert (after.condition, after.no_tries) == (Condition.PROBING, 1)
    assert world.suspicion() is None
    assert world.commit(Event.SEND_FAILED, suspected) is None
    assert world.node() == after


def test_fall_that_changes_nothing_ends_suspicion(world: Paths) -> None:
    world.arrive(1, 3)
    world.disable()
    assert world.open(Kind.PROBE) is Opened.ASKED
    found, before = world.suspicion(), world.node()
    assert world.commit(Event.PROBE_FAILED, found) == before
    assert world.suspicion() is None
    assert world.commit(Event.PROBE_FAILED, found) is None


@pytest.mark.parametrize("event", [Event.SET_DOWN, Event.SUSPECTED])
def test_any_change_of_node_ends_suspicion(
    event: Event, world: Paths, suspected: Suspicion
) -> None:
    assert world.suspicion() == suspected
    world.nodes.command(CLUSTER, 2, event, Cause("operator"))
    assert world.suspicion() is None


def test_ack_ends_suspicion_and_is_remembered(world: Paths, suspected: Suspicion) -> None:
    before = world.node()
    assert world.suspicions.ack(before, 4, "prober 4")
    assert world.suspicion() is None
    assert world.node() == before
    said = world.suspicions.confirmations([CLUSTER])[CLUSTER][2]
    assert said.who == 4
    assert suspected.since_ms <= said.at_ms <= world.paths.now_ms()
    assert world.fail(began_ms=suspected.since_ms) is Reply.CONFIRMED


@pytest.mark.parametrize(
    ("events", "kind", "bytes_taken", "expected"),
    [
        ([Event.SUSPECTED], None, False, Condition.UP),
        ([Event.SUSPECTED], Kind.PROBE, False, Condition.UP),
        ([Event.SUSPECTED] * 3, None, False, Condition.DISABLED),
        ([Event.SUSPECTED] * 3, None, True, Condition.UP),
        ([Event.SUSPECTED] * 3, Kind.PROBE, False, Condition.DISABLED),
        ([Event.SET_DOWN], None, True, Condition.DOWN),
        ([], None, True, Condition.UP),
    ],
)
def test_late_ack_lifts_verdict(
    events: list[Event], kind: Kind | None, bytes_taken: bool, expected: Condition, world: Paths
) -> None:
    world.arrive(1, 3)
    seen = world.node()
    for event in events:
        world.commit(event)
    if kind:
        assert world.open(kind) is Opened.ASKED
    tries = world.node().no_tries
    assert world.suspicions.ack(seen, 3, "test", bytes_taken=bytes_taken)
    after = world.node()
    assert after.condition is expected
    assert after.no_tries == tries
    assert world.suspicion() is None


def test_ack_of_round_lifts_node_whose_duration_is_over(world: Paths) -> None:
    world.arrive(1, 3)
    world.load(duration=0)
    world.disable()
    assert world.suspicions.ack(world.node(), 3, "without a round")
    assert world.node().condition is Condition.DISABLED
    assert world.open(Kind.PROBE) is Opened.ASKED
    assert world.suspicions.ack(world.node(), 3, "prober 3")
    assert (world.node().condition, world.node().no_tries) == (Condition.UP, 0)


def test_ack_begun_before_suspicion_is_no_evidence(world: Paths, suspected: Suspicion) -> None:
    for began_ms in (suspected.since_ms - 1, suspected.since_ms - EVIDENCE_MS):
        assert not world.suspicions.ack(world.node(), 3, "test", began_ms=began_ms)
    assert world.suspicion() == suspected
    assert world.suspicions.ack(world.node(), 3, "test", began_ms=suspected.since_ms)
    assert world.suspicion() is None


def test_ack_said_too_late_is_no_evidence(world: Paths) -> None:
    world.commit(Event.SUSPECTED)
    began_ms = world.paths.now_ms() - EVIDENCE_MS - 1
    assert not world.suspicions.ack(world.node(), 3, "test", began_ms=began_ms)
    assert world.node().condition is Condition.PROBING
    assert world.suspicions.ack(world.node(), 3, "test", began_ms=began_ms + EVIDENCE_MS // 2)
    assert world.node().condition is Condition.UP


def test_ack_of_another_address_is_no_evidence(world: Paths) -> None:
    before = world.node()
    world.load(host=9)
    world.commit(Event.SUSPECTED)
    assert not world.suspicions.ack(before, 3, "test", bytes_taken=True)
    assert world.node().condition is Condition.PROBING
    assert world.suspicions.confirmations([CLUSTER]) == {CLUSTER: {}}


def test_ack_after_clock_was_set_back_counts(world: Paths) -> None:
    ahead = world.paths.now_ms() + 60_000
    world.put(f"{ahead} {world.node().version} suspect 3 - 1 0")
    assert world.suspicions.ack(world.node(), 3, "test", began_ms=ahead)
    assert world.suspicion() is None


def test_ack_among_other_changes_lifts_verdict(world: Paths) -> None:
    """Another worker changes the node again and again, and the ack is not lost."""
    world.load(failed_attempts=10_000)
    world.commit(Event.SUSPECTED)
    stop = threading.Event()
    falls: list[object] = []

    def fall() -> None:
        while not stop.is_set() and len(falls) < 1000:
            falls.append(world.commit(Event.PROBE_FAILED))

    thread = threading.Thread(target=fall)
    thread.start()
    try:
        assert world.suspicions.ack(world.node(), 3, "test")
    finally:
        stop.set()
        thread.join(EVENTUALLY_S)
    assert world.node().condition is Condition.UP


# -- values that cannot be used --------------------------------------------------------------------


@pytest.mark.parametrize(
    "value",
    [
        "",
        "oops",
        "1 2 suspect 3 - 1",
        "1 2 other 3 - 1 0",
        "1 2 suspect x - 1 0",
        "-1 2 suspect 3 - 1 0",
    ],
)
def test_bad_suspicion_is_named_and_others_are_read(
    value: str, world: Paths, suspected: Suspicion
) -> None:
    name = keys.suspicions(*CLUSTER)
    world.client.hset(name, mapping={"4": value, "oops": str(suspected)})
    with collected() as problems:
        assert world.suspicions.all([CLUSTER]) == {CLUSTER: {2: suspected}}
    assert {(bad.key, bad.place) for bad in problems} == {(name, "field 4"), (name, "member")}


@pytest.mark.parametrize("value", ["", "oops", "1", "1 x", "x 1", "1 2 3", "-1 2"])
def test_bad_confirmation_is_named_and_replaced(value: str, world: Paths) -> None:
    world.arrive(1, 3)
    name = keys.confirmed(*CLUSTER)
    world.client.hset(name, mapping={"2": value, "4": "1 3"})
    with collected() as problems:
        found = world.suspicions.confirmations([CLUSTER])
        assert found == {CLUSTER: {4: Confirmation(1, 3)}}
        assert world.fail() is Reply.ASK
        assert world.open() is Opened.ASKED
    assert {(bad.key, bad.place) for bad in problems} == {(name, "field 2")}
    assert world.suspicions.ack(world.node(), 3, "test")
    assert world.suspicions.confirmations([CLUSTER])[CLUSTER][2].who == 3


@pytest.mark.parametrize(
    "name",
    [
        keys.suspicions(*CLUSTER),
        keys.confirmed(*CLUSTER),
        keys.prober_ring(3),
        keys.path_events(1),
    ],
)
def test_wrong_type_keeps_no_node_from_being_suspected(name: str, world: Paths) -> None:
    world.arrive(1, 3)
    world.client.set(name, "oops")
    seen = world.seen()
    with collected() as problems:
        world.suspicions.all([CLUSTER])
        world.suspicions.confirmations([CLUSTER])
        assert (
            world.suspicions.open(
                seen.node,
                Kind.SUSPECT,
                asking=1,
                reason=WHY,
                views=world.views(),
                observation=(1, seen),
            )
            is Opened.ASKED
        )
        assert world.suspicions.ack(world.node(), 3, "test")
    assert {bad.key for bad in problems} == {name}
    assert world.client.type(name) != b"string"


def test_wrong_type_of_cluster_ring_is_replaced(world: Paths, suspected: Suspicion) -> None:
    world.client.set(RING, "oops")
    with collected() as problems:
        assert world.suspicions.widen(CLUSTER, 2, suspected)
    assert {bad.key for bad in problems} == {RING}
    assert world.client.xlen(RING) == 1


def test_exhausted_rings_begin_again(world: Paths) -> None:
    world.arrive(1, 3, 4, 5)
    for name in (keys.prober_ring(3), RING):  # the next entry finds no id
        world.client.xadd(name, {"x": 1}, id=EXHAUSTED)
    with collected() as problems:
        world.open()
        assert world.suspicions.widen(CLUSTER, 2, world.suspicions.all([CLUSTER])[CLUSTER][2])
    assert {bad.key for bad in problems} == {keys.prober_ring(3), RING}
    assert world.client.xlen(keys.prober_ring(3)) == world.client.xlen(RING) == 1


def test_commit_goes_on_where_suspicions_have_wrong_type(world: Paths) -> None:
    name = keys.suspicions(*CLUSTER)
    world.client.set(name, "oops")
    with collected() as problems:
        assert world.commit(Event.SUSPECTED)
    assert {bad.key for bad in problems} == {name}
