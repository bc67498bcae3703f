"""Probers of several simulated hosts: presence, take-over, and errors around them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from time import monotonic
from typing import Any

import pytest
import redis

from clusterer.membership import Condition
from clusterer.prober import presence
from clusterer.prober.answers import BETWEEN_S
from clusterer.prober.presence import Presence
from clusterer.runtime.rounds import failures
from clusterer.settings import Settings, as_environment
from clusterer.store import keys
from clusterer.store.probers import Heartbeat, ProberStore
from clusterer.store.suspicions import Opened
from tests.support.cluster import CLUSTER, load, node
from tests.support.probing import (
    Hosts,
    audit,
    confirmed_by,
    context_of,
    host_of,
    hosts_on_loopback,
    keep_window_open,
    no_suspicion,
    suspect,
)
from tests.support.processes import LATE_S, spawn, wait_until
from tests.support.redis_server import RedisServer

SETTINGS = {"ping_interval": 0.0, "probe_interval": 0.2}


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
