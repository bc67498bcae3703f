"""Probers of several simulated hosts: real threads, real sockets, a real Redis."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator
from dataclasses import replace
from time import monotonic
from typing import Any

import pytest
import redis

from clusterer.membership import Condition, Event, State, suspicions
from clusterer.membership.suspicions import Kind, Suspicion
from clusterer.prober import checks, presence
from clusterer.prober import path_checks as path_checks_module
from clusterer.prober.answers import BETWEEN_S, Answers
from clusterer.prober.checks import CONNECTS, Checks
from clusterer.prober.context import Context
from clusterer.prober.liveness import Liveness
from clusterer.prober.path_checks import PathChecks
from clusterer.prober.presence import Presence
from clusterer.prober.verdicts import Verdicts
from clusterer.prober.viewpoint import Viewpoint
from clusterer.runtime.rounds import failures
from clusterer.settings import Settings, as_environment
from clusterer.store import Cause, Directory, keys
from clusterer.store.probers import Heartbeat, ProberStore
from clusterer.store.suspicions import Opened
from tests.support.cluster import CLUSTER, load, node
from tests.support.probing import Hosts, host_of, hosts_on_loopback
from tests.support.processes import LATE_S, spawn, wait_until
from tests.support.redis_server import RedisServer

SETTINGS = {"ping_interval": 0.0, "probe_interval": 0.2}


@pytest.fixture
def hosts(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hosts]:
    """Three hosts without probers."""
    with hosts_on_loopback(settings, monkeypatch, 3, duration=1) as made:
        yield made


def suspect(hosts: Hosts, machine_id: int, asking: int, kind: Kind = Kind.SUSPECT) -> Opened:
    views = {CLUSTER: hosts.context.nodes.view(CLUSTER)}
    return hosts.context.suspicions.open(
        hosts.node(machine_id), kind, asking=asking, reason="test", views=views
    )


def keep_window_open(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no suspicion end because its time is over, however late the answers of hosts are."""
    monkeypatch.setattr(suspicions, "WINDOW_MS", 3_600_000)


def no_suspicion(hosts: Hosts) -> bool:
    return not any(hosts.context.suspicions.all([CLUSTER]).values())


def confirmed_by(hosts: Hosts, machine_id: int) -> int:
    value = hosts.context.redis.hget(f"clusterer:{CLUSTER}:confirmed", str(machine_id))
    return int((value or b"0 0").split()[1])


def test_prober_reached_node_is_confirmed_and_stays_up(
    hosts: Hosts, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep_window_open(monkeypatch)
    hosts.start(1, 2, 3)
    hosts.cut(1, 2)
    assert suspect(hosts, 2, asking=1) is Opened.ASKED
    wait_until(lambda: no_suspicion(hosts))
    assert confirmed_by(hosts, 2) == 3
    assert hosts.condition(2) is Condition.UP


def test_prober_all_refused_node_falls_at_once(
    hosts: Hosts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The nacks of all hosts suffice: the end of the window is far away."""
    keep_window_open(monkeypatch)
    hosts.start(1, 2, 3)
    hosts.receivers[2].stop()
    assert suspect(hosts, 2, asking=1) is Opened.ASKED
    wait_until(lambda: hosts.condition(2) is Condition.PROBING)
    assert no_suspicion(hosts)


def test_prober_all_unanswered_node_falls_in_a_second(hosts: Hosts) -> None:
    hosts.start(1, 2, 3)
    hosts.cut(1, 2)
    hosts.cut(3, 2)
    began = monotonic()
    suspect(hosts, 2, asking=1)
    wait_until(lambda: hosts.condition(2) is Condition.PROBING)
    assert 0.8 < monotonic() - began < 1.3 + LATE_S


def test_prober_of_the_nodes_own_host_stays_silent(hosts: Hosts) -> None:
    hosts.start(1, 2)
    hosts.cut(1, 2)
    assert suspect(hosts, 2, asking=1) is Opened.ALONE
    assert not [where for where in hosts.connects if where[1] == hosts.node(2).address]


def test_prober_of_two_nodes_host_answers_if_only_one_asked(hosts: Hosts) -> None:
    """The opener could not know that the only other prober is on the node's own host."""
    hosts.start(2)
    views = {CLUSTER: hosts.context.nodes.view(CLUSTER)}
    hosts.receivers[3].stop()
    found = hosts.node(3)
    hosts.context.suspicions.open(found, Kind.SUSPECT, asking=None, reason="test", views=views)
    wait_until(lambda: hosts.condition(3) is Condition.PROBING)


def test_prober_asked_late_in_wide_suspicion_confirms(hosts: Hosts) -> None:
    """Of five hosts only the last reaches the node: the first three that are asked do not."""
    hosts.start(1, 2, 3)
    hosts.cut(1, 2)
    hosts.cut(3, 2)
    suspect(hosts, 2, asking=1)
    wait_until(lambda: hosts.condition(2) is Condition.PROBING)
    hosts.heal()
    assert suspect(hosts, 2, asking=1, kind=Kind.PROBE) is Opened.ASKED
    wait_until(lambda: hosts.condition(2) is Condition.UP)
    assert hosts.node(2).no_tries == 1


def test_prober_more_suspicions_than_checks_take_turns(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else silent nodes keep the prober from a node that is there, for as long as they are."""
    monkeypatch.setattr(checks, "AT_ONCE", 1)
    monkeypatch.setattr(checks, "URGENT_AT_ONCE", 0)
    monkeypatch.setattr("clusterer.prober.answers.BETWEEN_S", 0.0)
    first = set()
    with hosts_on_loopback(settings, monkeypatch, 6) as hosts:
        context = context_of(hosts, settings, {host_of(1)})
        answers = Answers(context)
        for _ in range(10):
            hosts.connects.clear()
            for node_ in (hosts.node(i) for i in range(2, 7)):
                now_ms = context.paths.now_ms()
                round_ = Suspicion(
                    now_ms, node_.version, Kind.PROBE, frozenset({1}), frozenset(), all_asked=False
                )
                name = keys.suspicions(*CLUSTER)
                hosts.context.redis.hset(name, str(node_.machine_id), str(round_))
            answers.rung()
            answers.turn()
            context.checks.turn(0.0)
            first |= {address for _, address in hosts.connects[:1]}
            context.checks.drop()
    assert len(first) > 1


def test_prober_path_check_answered_sets_path_up(hosts: Hosts) -> None:
    hosts.record(1, 2)
    hosts.start(1, 3)
    wait_until(lambda: (path := hosts.path(1, 2)) is None or path.state is State.UP)
    wait_until(lambda: hosts.path(1, 2) is None)
    assert hosts.context.paths.counters() == {}


def test_prober_path_broken_is_disabled_and_verdict_up(
    hosts: Hosts, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep_window_open(monkeypatch)
    hosts.cut(1, 2)
    hosts.record(1, 2)
    hosts.start(1, 3)
    wait_until(lambda: (path := hosts.path(1, 2)) and path.no_tries == 3)
    assert hosts.condition(2) is Condition.UP
    wait_until(lambda: confirmed_by(hosts, 2) == 3)
    last_ms = hosts.path(1, 2).last_ms  # type: ignore[union-attr]
    wait_until(lambda: (path := hosts.path(1, 2)) and path.last_ms > last_ms)
    assert hosts.condition(2) is Condition.UP
    hosts.heal()
    wait_until(lambda: hosts.path(1, 2) is None)


def test_prober_checks_once_for_all_senders_of_an_address(hosts: Hosts, settings: Settings) -> None:
    """A host with many senders has time for one check of each node, not of each path."""
    rows = [hosts.node(machine_id) for machine_id in (1, 2, 3)]
    others = [replace(rows[0], id=i, machine_id=i, url=f"{rows[0].url}{i}") for i in (11, 12, 13)]
    load(settings, [*rows, *others])
    hosts.cut(1, 2)
    before = {sender: hosts.record(sender, 2, tries=3) for sender in (1, 11, 12, 13)}
    hosts.start(1, 3)
    wait_until(lambda: all(hosts.path(each, 2) != path for each, path in before.items()))
    assert len(hosts.connects) <= 3 * CONNECTS, "one check of the paths, two about the verdict"


def test_prober_many_failed_checks_are_written_in_turns(
    hosts: Hosts, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each may open a suspicion: a prober with thousands must not miss its heartbeat."""
    monkeypatch.setattr(path_checks_module, "_AT_ONCE", 1)
    context = context_of(hosts, settings, {host_of(1)})
    context.probers.heartbeat(3, "other", [CLUSTER])
    before = {machine_id: hosts.record(1, machine_id) for machine_id in (2, 3)}
    for machine_id in before:
        hosts.receivers[machine_id].stop()
    due_at = monotonic() + 2 * settings.probe_interval
    wait_until(lambda: monotonic() > due_at)
    path_checks = PathChecks(context)
    path_checks.notice(context.paths.counters())
    check_node_2(hosts, context, path_checks)
    end_checks(context)
    written = []
    for _ in before:
        path_checks.notice(context.paths.counters())  # makes the next turn due
        path_checks.turn()
        written.append(sum(hosts.path(1, each) != path for each, path in before.items()))
    assert written == [1, 2]


def test_prober_path_check_refused_with_others_too_node_falls(hosts: Hosts) -> None:
    hosts.receivers[2].stop()
    hosts.record(1, 2)
    hosts.start(1, 3)
    wait_until(lambda: hosts.condition(2) is Condition.PROBING)


def test_prober_path_frozen_while_verdict_is_not_up(hosts: Hosts) -> None:
    before = hosts.record(1, 2)
    hosts.context.nodes.observe(hosts.node(2), Event.SEND_FAILED, Cause("test"))
    hosts.start(1, 3)
    wait_until(lambda: not hosts.connects)
    for _ in range(3):
        suspect(hosts, 3, asking=1)
        wait_until(lambda: no_suspicion(hosts))
    assert hosts.path(1, 2) == before


def test_prober_path_records_that_are_void_are_deleted(hosts: Hosts) -> None:
    hosts.record(1, 2, tries=3)
    hosts.record(1, 3, tries=3)
    hosts.context.redis.hincrby(f"clusterer:{CLUSTER}:node:2", "generation", 1)
    hosts.context.redis.hincrby(f"clusterer:{CLUSTER}:node:3", "epoch", 1)
    hosts.start(1)
    wait_until(lambda: not hosts.context.paths.counters())


def test_prober_path_record_of_later_epoch_is_kept(hosts: Hosts, settings: Settings) -> None:
    """A sender noticed the new epoch, and failed in it, before the prober has read the node."""
    context = context_of(hosts, settings, {host_of(1)})
    hosts.context.nodes.observe(hosts.node(2), Event.SEND_FAILED, Cause("test"))
    hosts.context.nodes.command(CLUSTER, 2, Event.SET_UP, Cause("test"))
    kept = hosts.record(1, 2)
    path_checks = PathChecks(context)
    path_checks.notice(context.paths.counters())
    path_checks.turn()
    assert hosts.path(1, 2) == kept


def test_prober_path_check_from_address_that_left_is_no_evidence(
    hosts: Hosts, settings: Settings
) -> None:
    """With the sysctl ip_nonlocal_bind, such an address can still be bound."""
    own = {host_of(1)}
    context = context_of(hosts, settings, own)
    hosts.cut(1, 2)
    kept = hosts.record(1, 2)
    path_checks = PathChecks(context)
    path_checks.notice(context.paths.counters())
    check_node_2(hosts, context, path_checks)
    own.clear()
    end_checks(context)
    path_checks.notice(context.paths.counters())
    path_checks.turn()
    assert hosts.path(1, 2) == kept


def test_prober_ping_from_address_that_left_is_no_evidence(
    hosts: Hosts, settings: Settings
) -> None:
    own = {host_of(1)}
    context = context_of(hosts, replace(settings, ping_interval=0.4, send_timeout=0.3), own)
    context.probers.heartbeat(1, "token", [CLUSTER])
    hosts.cut(1, 2)
    presence = Presence(context)
    presence.notice({CLUSTER: context.probers.present(CLUSTER)})
    liveness = Liveness(context, presence)
    check_node_2(hosts, context, liveness)
    own.clear()
    end_checks(context)
    assert no_suspicion(hosts)
    assert hosts.condition(2) is Condition.UP


def check_node_2(hosts: Hosts, context: Context, part: PathChecks | Liveness) -> None:
    """Let a part of a prober work until it checks node 2."""
    wanted = host_of(1), hosts.node(2).address

    def begun() -> bool:
        part.turn()
        context.checks.turn(0.0)
        return wanted in hosts.connects

    wait_until(begun)


def end_checks(context: Context) -> None:
    """Wait until all checks are concluded."""

    def ended() -> bool:
        context.checks.turn(0.01)
        return not len(context.checks)

    wait_until(ended)


def context_of(hosts: Hosts, settings: Settings, own: Collection[str]) -> Context:
    """Return what the prober of a host with these addresses knows, without its thread."""
    shared = hosts.context
    now_ms = shared.paths.now_ms()
    context = Context(
        settings=settings,
        nodes=shared.nodes,
        directory=Directory(shared.nodes),
        paths=shared.paths,
        suspicions=shared.suspicions,
        probers=shared.probers,
        verdicts=Verdicts(shared.nodes, shared.suspicions),
        viewpoint=Viewpoint(lambda address: address in own),
        checks=Checks(),
    )
    context.clock.tell(now_ms, monotonic())
    context.refresh()
    return context


def test_prober_silent_node_without_traffic_falls(hosts: Hosts, settings: Settings) -> None:
    hosts.start(1, 2, 3, settings=replace(settings, ping_interval=0.4, send_timeout=0.3))
    hosts.cut(1, 2)
    hosts.cut(3, 2)
    wait_until(lambda: hosts.condition(2) is Condition.PROBING)
    assert {hosts.condition(1), hosts.condition(3)} == {Condition.UP}
    assert audit(hosts, 1)[0][b"reason"].startswith(b"ping failed")


def test_prober_alone_refused_ping_sets_node_probing_at_once(
    hosts: Hosts, settings: Settings
) -> None:
    hosts.receivers[1].stop()
    hosts.start(1, settings=replace(settings, ping_interval=0.4))
    wait_until(lambda: hosts.condition(1) is Condition.PROBING)
    (event,) = audit(hosts, 1)
    assert (event[b"event"], event[b"by"]) == (b"suspected", b"prober 1")
    assert event[b"reason"] == b"ping failed: Connection refused"


def test_prober_pings_are_shared_by_other_hosts(hosts: Hosts, settings: Settings) -> None:
    hosts.start(1, 2, 3, settings=replace(settings, ping_interval=0.4))
    known = [prober._presence for prober in hosts.probers.values()]
    wait_until(lambda: all(len(each.fresh(CLUSTER)) == 3 for each in known))
    hosts.connects.clear()
    wait_until(lambda: len({source for source, _ in hosts.connects}) == 3)
    assert all(source != address[0] for source, address in hosts.connects)


@pytest.mark.parametrize("count", [2, 6])
def test_prober_pings_of_a_node_are_two_per_interval(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    """Whatever the number of hosts."""
    with hosts_on_loopback(settings, monkeypatch, count) as hosts:
        pinging = replace(settings, ping_interval=1.0)
        hosts.start(*range(1, count + 1), settings=pinging)
        known = [prober._presence for prober in hosts.probers.values()]
        wait_until(lambda: all(len(each.fresh(CLUSTER)) == count for each in known))
        began = monotonic()
        hosts.connects.clear()

        def pings() -> list[int]:
            to = Counter(address for _, address in hosts.connects)
            return [to[hosts.receivers[i].address] for i in range(1, count + 1)]

        wait_until(lambda: min(pings()) >= 4)
        rounds = (monotonic() - began) / (pinging.ping_interval / 2)
        assert max(pings()) <= rounds + 2, "a round that had begun, and the present one"


def test_prober_heartbeat_from_future_is_not_fresh(hosts: Hosts, settings: Settings) -> None:
    """Such a prober has left before Redis's clock was set back."""
    context = context_of(hosts, settings, {host_of(1)})
    present = {"1": context.now_ms, "2": context.now_ms + 600_000, "3": context.now_ms - 600_000}
    hosts.context.redis.zadd(keys.probers(*CLUSTER), present)
    presence = Presence(context)
    presence.notice({CLUSTER: context.probers.present(CLUSTER)})
    assert presence.fresh(CLUSTER) == [1]


def test_prober_second_process_takes_over_after_close(hosts: Hosts) -> None:
    hosts.start(1)
    first = hosts.probers[1]
    hosts.start(1)
    second = hosts.probers[1]
    assert (first.leads, second.leads) == (True, False)
    first.close()
    wait_until(lambda: second.leads)
    assert 1 in hosts.context.probers.present(CLUSTER)


def test_prober_closed_is_present_no_more_at_once(hosts: Hosts) -> None:
    hosts.start(1, 2)
    began = monotonic()
    hosts.probers[2].close()
    assert monotonic() - began < LATE_S
    assert list(hosts.context.probers.present(CLUSTER)) == [1]


def test_prober_killed_is_removed_by_the_lowest(
    hosts: Hosts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(presence, "SETTLE_S", 0.0)
    hosts.context.redis.zadd(f"clusterer:{CLUSTER}:probers", {"3": 1})
    hosts.start(1, 2)
    wait_until(lambda: list(hosts.context.probers.present(CLUSTER)) == [1, 2])


@pytest.mark.serial  # a late heartbeat comes with more of the other reads
def test_prober_idle_makes_four_round_trips_a_heartbeat(hosts: Hosts) -> None:
    """The prober reads the clusters' versions, says that it is present, and waits twice."""
    hosts.start(1)

    def calls() -> Counter[str]:
        found: Any = hosts.context.redis.info("commandstats")
        return Counter({name: each["calls"] for name, each in found.items()})

    first = calls()  # then the prober reads all
    wait_until(lambda: (calls() - first)["cmdstat_evalsha"] >= 2)
    before = calls()
    wait_until(lambda: (calls() - before)["cmdstat_evalsha"] >= 6)
    made = calls() - before
    beats = made["cmdstat_evalsha"]
    assert made["cmdstat_sort"] <= beats + 1
    assert made["cmdstat_hgetall"] <= beats, "within the heartbeat"
    assert made["cmdstat_zrange"] <= beats / 2 + 1, "within each second heartbeat"
    assert made["cmdstat_xread"] <= 3 * beats


def test_prober_whose_clock_is_a_bit_late_answers(
    hosts: Hosts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A prober learns Redis's time from its heartbeats; a suspicion may be newer than that."""
    heartbeat = ProberStore.heartbeat

    def late(*arguments: Any, **named: Any) -> Heartbeat | None:
        found = heartbeat(*arguments, **named)
        return found and replace(found, now_ms=found.now_ms - 90)

    monkeypatch.setattr(ProberStore, "heartbeat", late)
    keep_window_open(monkeypatch)
    hosts.start(1, 2, 3)
    parts = [prober._answers for prober in hosts.probers.values()]
    for _ in range(3):
        wait_until(lambda: max(part._looked_at for part in parts) < monotonic() - BETWEEN_S)
        suspect(hosts, 2, asking=1)
        wait_until(lambda: no_suspicion(hosts))
    assert hosts.condition(2) is Condition.UP


def test_prober_survives_bad_values_in_its_keys(hosts: Hosts) -> None:
    client = hosts.context.redis
    client.hset(f"clusterer:{CLUSTER}:suspicions", mapping={"2": "no", "x": "1"})
    client.hset("clusterer:paths:1", mapping={"1/2/1": "no", "x": "1"})
    client.hset("clusterer:paths", mapping={"1": "1"})
    client.set("clusterer:prober-ring:1", "text")
    hosts.start(1, 3)
    assert suspect(hosts, 2, asking=1) in (Opened.ASKED, Opened.ALREADY)
    wait_until(lambda: confirmed_by(hosts, 2))


def test_prober_rings_of_wrong_type_are_replaced(hosts: Hosts) -> None:
    client, rings = hosts.context.redis, (keys.prober_ring(1), keys.probers_ring(*CLUSTER))
    client.mset(dict.fromkeys(rings, "text"))
    before = failures().get("prober", 0)
    hosts.start(1)
    wait_until(lambda: not any(client.type(ring) == b"string" for ring in rings))
    hosts.start(3)
    suspect(hosts, 2, asking=3)
    wait_until(lambda: confirmed_by(hosts, 2))
    assert failures().get("prober", 0) == before


@pytest.mark.parametrize("fault", ["kill", "pause"])
def test_prober_redis_away_changes_no_other_verdict(
    own_redis_server: Callable[[], RedisServer], monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    """Host 3 is cut off. After the outage the first prober that is back must not feel alone."""
    server = own_redis_server()
    settings = Settings(
        redis_url=server.url, ping_interval=0.4, send_timeout=0.3, probe_interval=0.2
    )
    with hosts_on_loopback(settings, monkeypatch, 3, duration=1) as hosts:
        hosts.start(1, 2, 3)
        for one, other in ((1, 3), (2, 3), (3, 1), (3, 2)):
            hosts.cut(one, other)
        wait_until(lambda: hosts.condition(3) is Condition.PROBING)
        getattr(server, fault)()
        back_at = monotonic() + 4.0
        wait_until(lambda: monotonic() > back_at)
        server.resume() if fault == "pause" else server.start()
        wait_until(lambda: all(prober.leads for prober in hosts.probers.values()))
        until = monotonic() + 4.0
        wait_until(lambda: monotonic() > until)
        assert list(hosts.context.probers.present(CLUSTER)) == [1, 2, 3]
        events = audit(hosts, 100)
    assert {event[b"machine_id"] for event in events} == {b"3"}


def audit(hosts: Hosts, count: int) -> list[dict[bytes, bytes]]:
    """Return the latest events of the cluster that changed a node."""
    found: Any = hosts.context.redis.xrevrange(keys.events(CLUSTER.cluster_id), count=count)
    known = [fields for _, fields in found if fields[b"before"] != b"absent"]
    return [fields for fields in known if fields[b"before"] != fields[b"after"]]


def test_prober_forbidden_command_is_reported(
    own_redis_server: Callable[[], RedisServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    server = own_redis_server()
    with server.client() as client:
        client.execute_command("ACL", "SETUSER", "prober", "on", ">pw", "~*", "+@all", "-xread")
    url = server.url.replace("redis://", "redis://prober:pw@")
    before = failures().get("prober", 0)
    with hosts_on_loopback(Settings(redis_url=url), monkeypatch, 1) as hosts:
        hosts.start(1)
        wait_until(lambda: failures()["prober"] > before)


def test_prober_redis_away_is_no_failed_round(
    own_redis_server: Callable[[], RedisServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker itself logs that Redis is away."""
    server = own_redis_server()
    before = failures().get("prober", 0)
    with hosts_on_loopback(Settings(redis_url=server.url), monkeypatch, 1) as hosts:
        hosts.start(1)
        server.kill()
        wait_until(lambda: not hosts.probers[1].leads)
        assert failures()["prober"] == before
        server.start()
        wait_until(lambda: hosts.probers[1].leads)


def test_prober_runs_in_idle_delivery_worker_until_its_end(
    settings: Settings, redis_client: redis.Redis
) -> None:
    load(settings, [node(1), node(2, host="192.0.2.2")])
    probers = ProberStore(settings, redis_client)
    with spawn(("-m", "workers", "delivery"), as_environment(settings)) as worker:
        wait_until(lambda: list(probers.present(CLUSTER)) == [1])
        worker.terminate()
        assert probers.present(CLUSTER) == {}
    with spawn(("-m", "workers", "maintenance"), as_environment(settings)) as worker:
        worker.wait_for_output("takes jobs")
        assert probers.present(CLUSTER) == {}
