"""Costs that must not grow with what exists: commands and bytes at 1,000 nodes and 300 senders.

One Redis with the whole cluster serves all tests; `scripts/bench growth` measures the times.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest
from prometheus_client import generate_latest

from clusterer.services import Context
from clusterer.services.admin import set_status
from clusterer.services.live import Reader, node_pairs, rows
from clusterer.services.metrics import ClusterCollector
from clusterer.services.metrics.http import registry_of
from clusterer.services.periodic import probe, sweep, timeouts
from clusterer.services.status import node_list
from clusterer.settings import Settings
from clusterer.store import Directory
from tests.support.growth import CLUSTER, PACKETS, put_cluster
from tests.support.redis_server import RedisServer

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

NODES, SENDERS = 1000, 300

MOST_COMMANDS = 20
"""Of a tick with nothing due."""

MOST_BYTES = 1_000_000
MOST_SERIES = 20
"""Of a node."""


@pytest.fixture(scope="module")
def big_settings() -> Iterator[Settings]:
    """A Redis with 1,000 nodes, of which 300 have sent to all others."""
    with RedisServer() as server:
        settings = Settings(redis_url=server.url)
        put_cluster(settings, NODES, SENDERS)
        yield settings


@pytest.fixture
def big(big_settings: Settings) -> Iterator[Context]:
    with closing(Context(big_settings)) as context:
        yield context


def cost(context: Context, work: Callable[[], object]) -> tuple[int, int]:
    """Return the commands that Redis ran for ``work``, and the bytes that it sent."""
    client: Any = context.redis
    client.config_resetstat()
    work()
    commands = client.info("commandstats")
    sent = client.info("stats")["total_net_output_bytes"]
    others = ("cmdstat_config|resetstat", "cmdstat_info")
    ran = sum(int(each["calls"]) for name, each in commands.items() if name not in others)
    return ran, sent


def test_growth_refresh_reads_the_node_that_changed(big: Context) -> None:
    directory = Directory(big.nodes)
    directory.refresh()
    _, idle = cost(big, directory.refresh)
    for status in (0, 1):
        set_status.run(big, CLUSTER.cluster_id, 7, status, "bin", by="test")
        commands, sent = cost(big, directory.refresh)
        assert commands <= 5
        assert sent - idle <= 2000, "an event and a hash"


@pytest.mark.parametrize(
    "tick", [timeouts.run, probe.run, sweep.run], ids=["timeouts", "probe", "sweep"]
)
def test_growth_tick_with_nothing_due_is_few_commands(
    big: Context, tick: Callable[[Context], object]
) -> None:
    tick(big)
    # One tick in ten seconds lists the registrations.
    commands, sent = min(cost(big, lambda: tick(big)) for _ in range(3))
    assert commands <= MOST_COMMANDS
    assert sent <= 10_000


def test_growth_listing_reads_sums(big: Context) -> None:
    _, sent = cost(big, lambda: node_list.run(big, pairs=False))
    assert sent <= 2 * MOST_BYTES
    found = node_list.run(big, pairs=False)
    assert len(json.dumps(node_list.as_json(found))) <= MOST_BYTES
    assert {item.sent for item in found.sums.to_nodes} == {
        PACKETS * SENDERS,
        PACKETS * (SENDERS - 1),
    }
    assert [item.nodes for item in found.sums.from_senders] == [NODES - 1] * SENDERS
    assert set(found.reach(found.clusters[0]).values()) == {
        (SENDERS, SENDERS),
        (SENDERS - 1, SENDERS - 1),
    }


def test_growth_scrape_has_few_series_of_each_node(big: Context) -> None:
    registry = registry_of([ClusterCollector(big)])
    text = generate_latest(registry)
    assert len(text) <= MOST_BYTES
    series = [line for line in text.splitlines() if b"machine_id=" in line and line[:1] != b"#"]
    assert len(series) <= MOST_SERIES * NODES
    assert len(series) == len({*series}) >= 4 * NODES
    set_status.run(big, CLUSTER.cluster_id, 9, 0, "bin", by="test")
    generate_latest(registry)
    taken_down = b'after="down",before="up",cluster="1",machine_id="9"'
    (line,) = (line for line in generate_latest(registry).splitlines() if taken_down in line)
    assert line.endswith(b" 1.0")
    set_status.run(big, CLUSTER.cluster_id, 9, 1, "bin", by="test")


def test_growth_top_reads_sums(big: Context) -> None:
    reader = Reader(big)
    before = reader.read()
    _, sent = cost(big, reader.read)
    assert sent <= 2 * MOST_BYTES
    (cluster,) = rows(before, reader.read())
    row = cluster.rows[0]
    assert (row.backlog, row.in_per_s, row.out_per_s) == (0, 0.0, 0.0)
    assert row.reach == (SENDERS - 1, SENDERS - 1)
    assert len(cluster.rows) == NODES


def test_growth_page_of_a_node_reads_this_node_only(big: Context) -> None:
    snapshot = Reader(big).read()
    (view,) = snapshot.clusters
    _, sent = cost(big, lambda: node_pairs.read(big, snapshot, view.nodes[2]))
    assert sent <= MOST_BYTES // 2
    found = node_pairs.read(big, snapshot, view.nodes[2])
    assert [item.sender for item in found.received] == [1, *range(3, SENDERS + 1)]
    assert len(found.sent) == NODES - 1
