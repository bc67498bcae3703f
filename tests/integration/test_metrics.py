"""Metrics of real processes; dashboard, alerts and the page name no metric that does not exist."""

from __future__ import annotations

import contextlib
import re
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis
from prometheus_client.parser import text_string_to_metric_families

from clusterer import Clusterer
from clusterer.membership import Node
from clusterer.services import Context
from clusterer.services.admin import set_status
from clusterer.services.metrics import ClusterCollector
from clusterer.services.metrics.http import registry_of
from clusterer.settings import Settings, as_environment
from clusterer.store import NodeStore, keys
from clusterer.store.packets import PacketLog
from tests.support import docs
from tests.support.cluster import CLUSTER, load, node
from tests.support.frames import frame
from tests.support.ports import free_port
from tests.support.processes import EVENTUALLY_S, LATE_S, spawn, wait_until
from tests.support.promtool import needs_promtool, promtool
from tests.support.redis_server import RedisServer

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def scrape(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=EVENTUALLY_S) as answer:
        text: str = answer.read().decode()
    return text


def samples(text: str) -> Samples:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(found: Samples, name: str, **labels: str) -> float:
    (only,) = (
        number
        for (each, has), number in found.items()
        if each == name and labels.items() <= dict(has).items()
    )
    return only


@pytest.fixture
def system(redis_client: redis.Redis, redis_url: str) -> Iterator[dict[str, int]]:
    """Two instances that have talked, with all processes; yields the ports of their metrics."""
    settings = Settings(
        redis_url=redis_url,
        replicate_pipes_to=1,
        accept_pipes_from=1,
        opensips_3_clusters="9",  # without a node, so that the metric of links exists
    )
    load(settings, [node(m, free_port(), failed_attempts=1000) for m in (1, 2)])
    commands = {
        "node": ["-m", "clusterer", "node", "--server-id", "1"],
        "delivery": ["-m", "workers", "delivery"],
        "maintenance": ["-m", "workers", "maintenance"],
        "scheduler": ["-m", "scheduler"],
    }
    ports = {name: free_port() for name in commands}
    with contextlib.ExitStack() as stack:
        for name, command in commands.items():
            environment = as_environment(settings) | {"CLUSTERER_METRICS_PORT": str(ports[name])}
            child = stack.enter_context(spawn(command, environment))
            child.wait_for_output("metrics: listening on http://")
        sender = stack.enter_context(Clusterer(2, settings=settings))
        for _ in range(10):
            sender.send_to(1, "bin", sender.packet("ratelimit", 2).push_str("x").build())
        context = stack.enter_context(contextlib.closing(Context(settings)))
        scrape(ports["scheduler"])
        arrived, sent = "clusterer_received_packets_total", "clusterer_sent_packets_total"
        wait_until(lambda: _ten(ports["node"], arrived, machine_id="2"), message="ten have come")
        # Counted a moment after they were written.
        wait_until(lambda: _ten(ports["delivery"], sent, sender="2"), message="ten are counted")
        # The packets do not wait for the first periodic job.
        done = ("clusterer_job_duration_seconds_count", "workers.probe")
        wait_until(lambda: _ran(ports["maintenance"], *done), message="a probe job has run")
        changes = samples(scrape(ports["scheduler"]))
        assert taken_down(changes) == 0
        set_status.run(context, 1, 2, 0, "bin", by="test")
        yield ports


def taken_down(found: Samples) -> float:
    """Return how often node 2 was set down, whether it was up before or had failed."""
    changes = ({"machine_id": "2", "before": each, "after": "down"} for each in ("up", "probing"))
    return sum(value(found, "clusterer_node_transitions_total", **labels) for labels in changes)


def _ran(port: int, name: str, function: str) -> bool:
    return (name, frozenset({("function", function)})) in {
        (each, has & {("function", function)}) for each, has in samples(scrape(port))
    }


def _ten(port: int, name: str, **labels: str) -> bool:
    return any(
        number >= 10 and labels.items() <= dict(has).items()
        for (each, has), number in samples(scrape(port)).items()
        if each == name
    )


def test_metrics_of_every_process_are_documented_names(system: dict[str, int]) -> None:
    texts = {name: scrape(port) for name, port in system.items()}
    cluster = samples(texts["scheduler"])
    assert value(cluster, "clusterer_skipped_packets_total", sender="2", machine_id="1") == 0
    assert value(cluster, "clusterer_node_state", machine_id="2", state="down") == 1
    assert value(cluster, "clusterer_node_state", machine_id="2", state="up") == 0
    assert taken_down(cluster) == 1
    assert value(cluster, "clusterer_redis_up") == 1
    assert value(cluster, "clusterer_scheduler_active") == 1
    assert value(cluster, "clusterer_scheduler_tick_lateness_seconds_count") > 0
    assert value(cluster, "clusterer_queue_workers", queue="clusterer-maintenance") == 1
    maintenance = samples(texts["maintenance"])
    function = {"function": "workers.probe"}
    assert value(maintenance, "clusterer_job_duration_seconds_count", **function) > 0
    delivery = samples(texts["delivery"])
    flow = {"sender": "2", "machine_id": "1", "module": "ratelimit"}
    sent = value(delivery, "clusterer_sent_packets_total", **flow)
    assert sent >= 10
    assert value(delivery, "clusterer_sent_bytes_total", **flow) == sent * 38
    on_their_way = "clusterer_delivery_latency_seconds"
    assert value(delivery, f"{on_their_way}_count", machine_id="1") >= 10
    assert 0 < value(delivery, f"{on_their_way}_sum", machine_id="1") < 100
    assert value(delivery, f"{on_their_way}_bucket", machine_id="1", le="60.0") >= 10
    instance = samples(texts["node"])
    assert 0 <= value(instance, "clusterer_snapshot_age_seconds", receiver="1") < 5 + LATE_S
    heard = {"module": "ratelimit", "machine_id": "2"}
    packets = value(instance, "clusterer_received_packets_total", **heard)
    assert value(instance, "clusterer_received_bytes_total", **heard) >= packets * 33
    offered = value(instance, "clusterer_offered_packets_total", sender="1", module="ratelimit")
    assert offered > 0
    size = value(instance, "clusterer_offered_bytes_total", sender="1", module="ratelimit")
    assert size == offered * 33, "an empty heartbeat"
    assert value(instance, "clusterer_posted_packets_total", sender="1") >= offered
    assert value(instance, "clusterer_unsent_posts_total", sender="1", reason="refused") == 0
    assert value(instance, "clusterer_post_buffer_bytes", sender="1") >= 0
    existing = {name for text in texts.values() for name, _ in samples(text)}
    _check_names(existing, "\n".join(texts.values()))


def _check_names(existing: set[str], text: str) -> None:
    found = set(re.findall(r"(?m)^# TYPE (clusterer_\S+)", text))
    families = {name.removesuffix("_total") for name in found if not name.endswith("_created")}
    for name in families:
        assert re.fullmatch(r"clusterer_[a-z_]+[a-z]", name)
    places = {path.name: path.read_text() for path in (docs.DOCS / "monitoring").iterdir()}
    for name, content in places.items():
        used = set(re.findall(r"\bclusterer_\w+", content))
        assert used - existing == set(), name
    page = docs.section("monitoring.md", "Metrics")
    rows = [row[0] for row in docs.table_rows(page, columns=3) if "`" in row[0]]
    documented = {name for row in rows for name in re.findall(r"`(clusterer_\w+)`", row)}
    assert documented == families


@needs_promtool
def test_metrics_of_every_process_pass_promtool(system: dict[str, int]) -> None:
    for port in system.values():
        assert promtool("check", "metrics", text=scrape(port)) == ""


def test_metrics_without_redis_show_only_redis_down(
    own_redis_server: Callable[[], RedisServer], tmp_path: Path
) -> None:
    server = own_redis_server()
    context = Context(Settings(redis_url=server.url, data_dir=str(tmp_path)))
    registry = registry_of([ClusterCollector(context)])
    assert registry.get_sample_value("clusterer_redis_up") == 1
    server.stop()
    assert registry.get_sample_value("clusterer_redis_up") == 0
    assert registry.get_sample_value("clusterer_schedulers") is None
    server.start()
    assert registry.get_sample_value("clusterer_redis_up") == 1
    context.close()


def test_metrics_counters_never_fall_and_moved_node_starts_at_0(
    redis_client: redis.Redis, redis_url: str
) -> None:
    settings = Settings(redis_url=redis_url)
    load(settings, [node(1), node(2)])
    PacketLog(settings, 1).append(CLUSTER, [frame(0)])
    (place,) = (each.destination for each in listed(settings) if each.machine_id == 2)
    with contextlib.closing(Context(settings)) as context:
        registry = registry_of([ClusterCollector(context)])

        def lost() -> float | None:
            labels = {"sender": "1", "cluster": "1", "protocol": "bin", "machine_id": "2"}
            return registry.get_sample_value("clusterer_lost_packets_total", labels)

        shown = []
        for change in (7, -3, 3, 1):
            redis_client.hincrby(keys.stats(1), f"{place}/lost", change)
            redis_client.hincrby(keys.counters(1), "claims", 1)
            shown.append(lost())
        assert shown == [7, 7, 7, 8]
        load(settings, [node(1), node(2, port=2)])
        assert lost() == 0


def listed(settings: Settings) -> list[Node]:
    (view,) = NodeStore(settings).views().values()
    return list(view.nodes.values())
