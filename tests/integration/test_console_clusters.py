"""The pages Overview, Cluster and Node, over HTTP, of a real Redis."""

from __future__ import annotations

import gzip
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import httpx
import pytest
import redis

from clusterer.membership import Event
from clusterer.services import Context
from clusterer.services.admin import set_status
from clusterer.services.periodic import history
from clusterer.settings import Settings
from clusterer.store import Cause, keys
from clusterer.store.paths import Observation, PathStore
from tests.support.cluster import CLUSTER, load, node
from tests.support.consoles import Served, served, watching
from tests.support.processes import EVENTUALLY_S, wait_until
from tests.support.scale import scaled
from tests.support.seeding import make_node, put_node

HOSTILE = "<script>alert('1')</script>\"\u202e\u2066" + "x" * 200
HERE = "/clusters/1-bin"


@pytest.fixture
def context(context: Context, redis_client: redis.Redis) -> Context:
    """Of a cluster with nodes 1 to 3, of which node 1 sends to the others."""
    load(context.settings, [node(i, host=f"127.0.0.{i}", duration=600) for i in (1, 2, 3)])
    generations = {i: _node(context, i).generation for i in (2, 3)}
    redis_client.hset(keys.counters(1), mapping={"sequence": 90, "1:bin": 90})
    for kind in (keys.committed_count, keys.committed):
        redis_client.hset(kind(1), mapping={f"1/{i}/{g}": 90 for i, g in generations.items()})
    stats = {f"1/{i}/{g}/sent": 90 for i, g in generations.items()}
    redis_client.hset(keys.stats(1), mapping=stats)  # type: ignore[arg-type]  # dict is invariant
    return context


@pytest.fixture
def console(context: Context) -> Iterator[Served]:
    with served(context.settings) as made:
        yield made


@pytest.fixture
def client(console: Served) -> Iterator[httpx.Client]:
    with console.client() as made:
        yield made


def _node(context: Context, machine_id: int) -> Any:
    found, _ = context.nodes.read(CLUSTER, machine_id)
    assert found is not None
    return found


def fail(context: Context, machine_id: int, reason: str, times: int = 3) -> None:
    for _ in range(times):
        cause = Cause("delivery of sender 1", reason)
        assert context.nodes.observe(_node(context, machine_id), Event.SEND_FAILED, cause)


def text_of(html: str) -> str:
    """Return the text of a page without its tags, in one line."""
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", html))


def content(client: httpx.Client, path: str) -> dict[str, Any]:
    answer = client.get(f"/api/v1{path}")
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def of_nodes(found: dict[str, Any]) -> list[str]:
    """Return the alarms about nodes; no workers run here, and that has alarms of its own."""
    return [alarm["text"] for alarm in found["alarms"] if alarm["machine_id"]]


def test_overview_healthy_cluster_is_quiet(client: httpx.Client) -> None:
    found = content(client, "/overview")
    assert of_nodes(found) == []
    (cluster,) = found["clusters"]
    assert (cluster["nodes"], cluster["up"], cluster["down"]) == (3, 3, 0)
    assert (cluster["backlog"], cluster["oldest_since"]) == (0, None)
    assert found["redis"]["role"] == "primary"
    page = content(client, HERE)
    assert page["alarms"] == []
    html = client.get(HERE).text
    assert "No alarms" in html
    assert "All paths are up" in html


def test_overview_without_processes_says_so_first(client: httpx.Client) -> None:
    found = content(client, "/overview")
    texts = " ".join(alarm["text"] for alarm in found["alarms"])
    assert "no scheduler runs" in texts
    assert "maintenance workers" in texts
    assert found["alarms"][0]["severity"] == "error"


def test_overview_dead_node_is_an_alarm_in_words(context: Context, client: httpx.Client) -> None:
    fail(context, 2, "Connection refused")
    (alarm,) = [each for each in content(client, "/overview")["alarms"] if each["machine_id"]]
    assert alarm["text"] == "node 2 is disabled"
    assert alarm["reason"] == "Connection refused"
    assert alarm["severity"] == "error"
    assert alarm["since"] == pytest.approx(context.nodes.now(), abs=60)
    assert alarm["until"] == _node(context, 2).enabled_at
    html = client.get("/overview").text
    assert "node 2 is disabled since" in text_of(html)
    assert "1 disabled" in text_of(html)
    assert f'href="{HERE}/nodes/2"' in html


def test_overview_node_down_is_a_note_with_its_reason(
    context: Context, client: httpx.Client
) -> None:
    set_status.run(context, 1, 3, 0, "bin", by="operator root@sip1", reason="new disk")
    (alarm,) = [each for each in content(client, "/overview")["alarms"] if each["machine_id"]]
    assert alarm["text"] == "node 3 is down, set by operator root@sip1"
    assert (alarm["severity"], alarm["reason"]) == ("note", "new disk")


def break_path(context: Context, sender: int, machine_id: int, reason: str) -> None:
    store = PathStore(context.settings, context.redis)
    to, began = _node(context, machine_id), store.now_ms() + 1
    wait_until(lambda: store.now_ms() > began, EVENTUALLY_S)
    seen = Observation(to, None, Event.SEND_FAILED, reason, began, f"delivery of sender {sender}")
    store.observe(sender, [seen])


def test_cluster_broken_path_is_drawn_and_named(context: Context, client: httpx.Client) -> None:
    break_path(context, 1, 2, "Connection timed out")
    found = content(client, HERE)
    assert of_nodes(found) == ["sender 1 does not reach node 2"]
    (path,) = found["paths"]
    assert (path["sender"], path["machine_id"], path["condition"]) == (1, 2, "probing")
    assert path["reason"] == "Connection timed out"
    first = found["nodes"][0]
    assert first["machine_id"] == 2, "trouble comes first"
    assert (first["reached_by"], first["live_senders"]) == (0, 1)
    html = client.get(HERE).text
    assert "<title>1 → 2 probing</title>" in html
    assert content(client, "/overview")["clusters"][0]["partly_reached"] == 1


def test_cluster_find_selects_nodes(client: httpx.Client) -> None:
    def found(find: str) -> list[int]:
        answer = client.get(f"/api/v1{HERE}", params={"find": find})
        return [each["machine_id"] for each in answer.json()["nodes"]]

    assert found("2") == [2]
    assert found("127.0.0.3") == [3]
    assert found("up") == [1, 2, 3]
    assert found("nothing like this") == []
    assert client.get(HERE, params={"page": "x"}).status_code == 400
    assert client.get(HERE, params={"page": "99"}).status_code == 200
    assert client.get(f"/api/v1{HERE}", params={"page": ""}).json()["page"] == 1


@pytest.mark.parametrize(
    "path",
    [
        "/clusters/7-bin",
        "/clusters/1-udp",
        "/clusters/2-<b>",
        f"{HERE}/nodes/9",
        f"{HERE}/nodes/9/history",
    ],
)
def test_pages_of_what_does_not_exist_are_404(path: str, client: httpx.Client) -> None:
    assert client.get(path).status_code == 404
    assert client.get(f"/api/v1{path}").status_code == 404


def test_node_has_row_states_paths_and_events(context: Context, client: httpx.Client) -> None:
    fail(context, 2, "Connection refused")
    found = content(client, f"{HERE}/nodes/2")
    assert found["node"]["condition"] == "disabled"
    assert found["node"]["back_at"] == _node(context, 2).enabled_at
    assert [each["condition"] for each in found["states"]] == ["up", "probing", "disabled"]
    assert found["states"][-1]["until"] is None
    (sender,) = found["senders"]
    assert (sender["machine_id"], sender["sent"], sender["path"]) == (1, 90, "disabled")
    assert [each["event"] for each in found["events"]] == ["send failed"] * 3 + ["added"]
    one = content(client, f"{HERE}/nodes/1")
    assert [(each["machine_id"], each["path"]) for each in one["destinations"]] == [
        (2, "disabled"),
        (3, "up"),
    ]
    assert "Connection refused" in client.get(f"{HERE}/nodes/2").text


def test_node_history_is_rates_and_a_table(context: Context, client: httpx.Client) -> None:
    field = f"1/2/{_node(context, 2).generation}/sent"
    for _ in range(3):
        assert history.run(context)
        recorded = context.nodes.now()
        context.histories.rest(0.0)
        context.redis.hincrby(keys.stats(1), field, 50)
        context.redis.hincrby(keys.counters(1), "claims", 1)
        # Two samples of one millisecond give no rate.
        wait_until(lambda: context.nodes.now() > recorded + 0.002)  # noqa: B023
    found = content(client, f"{HERE}/nodes/2/history")
    assert len(found["samples"]) == 2
    assert all(each["sent_to_per_s"] for each in found["samples"])
    html = client.get(f"{HERE}/nodes/2/history").text
    assert html.count("<tr>") == 3
    assert "Samples as a table" in client.get(f"{HERE}/nodes/2").text
    assert content(client, HERE)["nodes"][1]["sent_to_per_s"]
    assert 'class="sparkline"' in client.get(HERE).text


def test_pages_without_samples_have_no_charts(settings: Settings, context: Context) -> None:
    with served(replace(settings, history_interval=0.0)) as console, console.client() as client:
        assert "charts.js" not in client.get(f"{HERE}/nodes/2").text
        assert "Last 10 min" not in client.get(HERE).text
        assert "switched off" in client.get(f"{HERE}/nodes/2/history").text


def odd_values(client: redis.Redis) -> None:
    """Fill Redis with names and values that no clusterer process writes."""
    put_node(client, make_node(4, description=HOSTILE, url=f"bin:{HOSTILE}:1"))
    client.hset(keys.node(1, "bin", 4), "state", "\xff")
    put_node(client, make_node(5, description="\u0000\u0007" + HOSTILE))
    event = {"protocol": "bin", "machine_id": 5, "event": HOSTILE, "by": HOSTILE}
    event |= {"reason": HOSTILE, "before": HOSTILE, "after": HOSTILE, "url": HOSTILE}
    client.xadd(keys.events(1), event)  # type: ignore[arg-type]  # dict is invariant
    client.sadd(keys.CLUSTERS, "x:y:z", b"\xff\xfe", "2:<b>", "-1:bin")
    client.sadd(keys.nodes(1, "bin"), "<script>", "0")
    client.set(keys.history(1, "bin", 5), HOSTILE)
    client.set(keys.paths(3), HOSTILE)
    client.hset(keys.PATHS, "3", "1")
    client.sadd(keys.INSTANCES, 3, HOSTILE)
    now_ms = client.time()[0] * 1000
    fields = {"heartbeat": now_ms, f"{HOSTILE}:1": 0}
    client.hset(keys.modules(3), mapping=fields)  # type: ignore[arg-type]  # dict is invariant
    client.zadd(keys.last_seen(3, HOSTILE, 1), {"5": now_ms, "<b>": 1})
    client.sadd(keys.QUEUES, HOSTILE)
    client.sadd("rq:workers", HOSTILE)


@pytest.mark.parametrize("path", ["/overview", HERE, f"{HERE}/nodes/5", f"{HERE}/nodes/5/history"])
def test_pages_with_odd_values_work_and_escape(
    path: str, context: Context, client: httpx.Client, redis_client: redis.Redis
) -> None:
    odd_values(redis_client)
    answer = client.get(path)
    assert answer.status_code == 200, answer.text
    assert "<script>alert" not in answer.text
    assert not re.search(r"<b>(?!</b>)", answer.text)
    assert client.get(f"/api/v1{path}").status_code == 200


def test_pages_live_node_that_fails_is_shown_without_reload(
    context: Context, client: httpx.Client
) -> None:
    html = client.get(HERE).text
    (version,) = re.findall(r'data-version="([^"]+)"', html)
    with watching(client, HERE, version) as events:
        fail(context, 2, "Connection refused")
        for _ in range(20):
            changed = events.next("changes")["fragments"]
            if "node 2 is disabled" in changed.get("alarms", ""):
                return
    pytest.fail("the alarm did not come")


def test_pages_of_large_cluster_are_bounded(settings: Settings, redis_client: redis.Redis) -> None:
    count = scaled(300, 1000)
    for machine_id in range(1, count + 1):
        put_node(redis_client, make_node(machine_id, host="127.0.0.1", url="bin:127.0.0.1:1"))
    redis_client.hset(keys.counters(1), mapping={"sequence": 90, "1:bin": 90})
    with served(settings) as console, console.client() as client:
        for path in ("/overview", HERE, f"{HERE}/nodes/5"):
            answer = client.get(path)  # the first look reads what keys there are
            assert answer.status_code == 200
            assert len(gzip.compress(answer.content)) <= 100_000
        found = content(client, HERE)
        assert len(found["nodes"]) == 100
        assert found["pages"] == -(-count // 100)
        assert "are not drawn" in client.get(HERE).text
        feed = console.app.console.feed
        feed._moment._at -= 60.0
        feed._moment._every_s = 60.0  # no further read is due while the test runs
        before = _calls(redis_client)
        for _ in range(10):
            feed.now()
        took = _calls(redis_client) - before
        assert took <= 2 * count + 50, "one read and one look for packets of each node"


def _calls(client: redis.Redis) -> int:
    """Return how many commands Redis has run."""
    return sum(int(found["calls"]) for found in client.info("commandstats").values())
