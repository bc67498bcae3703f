"""Commands that a list of all nodes sends to Redis, and the traffic that the list shows."""

from __future__ import annotations

import json

import pytest
import redis

from clusterer.cli import main
from clusterer.services import Context
from clusterer.services.metrics import ClusterCollector
from clusterer.services.metrics import cluster as metrics
from clusterer.services.metrics.http import registry_of
from clusterer.services.status import node_list
from clusterer.settings import Settings
from clusterer.store import keys
from clusterer.store.packets import PacketLog
from tests.support.cluster import CLUSTER
from tests.support.frames import frame
from tests.support.seeding import make_node, put_node

NODES = 200

Capture = pytest.CaptureFixture[str]


pytestmark = pytest.mark.usefixtures("in_environment")


@pytest.fixture
def context(context: Context, redis_client: redis.Redis) -> Context:
    """Of a cluster with 200 nodes, node N of generation N."""
    for machine_id in range(1, NODES + 1):
        put_node(redis_client, make_node(machine_id, generation=machine_id))
    return context


def commands(client: redis.Redis) -> int:
    """Return how many commands Redis has run, those of scripts too."""
    return sum(int(found["calls"]) for found in client.info("commandstats").values())


def record(client: redis.Redis, sender: int, **stats: int) -> None:
    """Record a sender's packets to nodes 2 and 3, of which node 3 has all."""
    client.hset(keys.counters(sender), mapping={"sequence": 90, "1:bin": 90})
    client.hset(keys.committed_count(sender), mapping={"1/2/2": 70, "1/3/3": 90})
    client.hset(keys.committed(sender), mapping={"1/2/2": 70, "1/3/3": 90})
    client.hset(keys.stats(sender), mapping={f"1/2/2/{name}": n for name, n in stats.items()})


def test_node_list_without_senders_reads_each_node_once(
    context: Context, redis_client: redis.Redis
) -> None:
    before = commands(redis_client)
    assert node_list.run(context).traffic == ()
    assert commands(redis_client) - before <= NODES + 10


def test_node_list_of_senders_without_traffic_is_empty(
    context: Context, redis_client: redis.Redis
) -> None:
    for sender in range(1, NODES + 1):
        redis_client.hset(keys.counters(sender), mapping={"sequence": 10, "1:bin": 10})
    before = commands(redis_client)
    assert node_list.run(context).traffic == ()
    assert commands(redis_client) - before <= 7 * NODES + 20
    assert node_list.sender_backlogs(node_list.run(context)) == []


def test_node_list_has_the_pairs_with_traffic_only(
    context: Context, redis_client: redis.Redis
) -> None:
    record(redis_client, 1, sent=60)
    record(redis_client, 4, sent=5)
    redis_client.hset(keys.stats(4), "1/9/8888/sent", 3)  # of an earlier generation of node 9
    found = [(item.sender, item.machine_id) for item in node_list.run(context).traffic]
    assert found == [(1, 2), (1, 3), (4, 2), (4, 3)]


def test_packets_that_no_worker_has_seen_are_backlog(
    context: Context, redis_client: redis.Redis, redis_url: str
) -> None:
    log = PacketLog(Settings(redis_url=redis_url), 1)
    log.append(CLUSTER, [frame(0)])
    for machine_id in range(2, NODES + 1):
        redis_client.hset(keys.node(1, "bin", machine_id), "generation", 2)
    before = commands(redis_client)
    found = node_list.run(context)
    assert commands(redis_client) - before <= 2 * NODES + 50, "one look at the log"
    assert {(item.sender, item.backlog) for item in found.traffic} == {(1, 1)}
    assert len(found.traffic) == NODES - 1
    (waiting,) = node_list.sender_backlogs(found)
    assert (waiting.sender, waiting.packets) == (1, 1)


def test_list_json_has_sums_and_pairs_on_request_only(
    context: Context, redis_client: redis.Redis, capsys: Capture
) -> None:
    record(redis_client, 1, sent=60, failed=1, lost=6, last_delivered=95_000)
    record(redis_client, 4, sent=5, skipped=2, last_delivered=9_000)
    assert main(["list", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    to_2, to_3 = found["traffic"]
    assert "sender" not in to_2
    assert (to_2["cluster_id"], to_2["protocol"], to_2["machine_id"]) == (1, "bin", 2)
    assert [to_2[name] for name in ("sent", "failed", "skipped", "lost")] == [65, 1, 2, 6]
    assert (to_2["senders"], to_2["backlog"], to_2["last_delivered"]) == (2, 40, "95000")
    assert (to_3["senders"], to_3["backlog"], to_3["oldest_s"]) == (2, 0, None)
    from_1, from_4 = found["senders"]
    assert (from_1["sender"], from_1["nodes"], from_1["sent"], from_1["backlog"]) == (1, 2, 60, 20)
    assert (from_4["sender"], from_4["last_delivered"]) == (4, "9000")
    assert main(["list", "--json", "--traffic"]) == 0
    pairs = json.loads(capsys.readouterr().out)["traffic"]
    assert len(pairs) == 4
    for name in ("sent", "failed", "skipped", "lost"):
        assert sum(pair[name] for pair in pairs) == to_2[name] + to_3[name]


@pytest.mark.parametrize("options", [[], ["--traffic"]])
def test_list_of_large_numbers_fits_80_columns(
    context: Context, redis_client: redis.Redis, capsys: Capture, options: list[str]
) -> None:
    many = 10**9
    record(redis_client, 150, sent=many, failed=many, skipped=many, lost=many)
    redis_client.hset(keys.counters(150), "1:bin", many)
    assert main(["list", *options]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert any(line.split()[-5:-1] == ["1000M"] * 4 for line in lines)


def test_metrics_of_too_many_pairs_are_sums_of_nodes(
    context: Context, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    record(redis_client, 1, lost=6)
    record(redis_client, 4, lost=2)
    registry = registry_of([ClusterCollector(context)])

    def lost(sender: str) -> float | None:
        labels = {"sender": sender, "cluster": "1", "protocol": "bin", "machine_id": "2"}
        return registry.get_sample_value("clusterer_lost_packets_total", labels)

    assert (lost("1"), lost("4"), lost("all")) == (6, 2, None)
    monkeypatch.setattr(metrics, "MOST_PAIRS", 3)
    assert (lost("1"), lost("4"), lost("all")) == (None, None, 8)
    labels = {"sender": "all", "cluster": "1", "protocol": "bin", "machine_id": "2"}
    assert registry.get_sample_value("clusterer_backlog_packets", labels) == 40
    (age,) = (m for m in registry.collect() if m.name == "clusterer_backlog_oldest_age_seconds")
    assert {sample.labels["sender"] for sample in age.samples} == {"1", "4"}
