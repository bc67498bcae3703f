"""Commands, metrics and live views where senders do not reach the same nodes."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import closing

import pytest
import redis

from clusterer.cli import main
from clusterer.membership import Event
from clusterer.services import Context, doctor
from clusterer.services.doctor.finding import Level
from clusterer.services.live import Reader, rows
from clusterer.services.metrics.cluster import ClusterCollector
from clusterer.services.metrics.series import MOST_PATHS
from clusterer.settings import Settings
from clusterer.store import Cause, keys
from tests.support.broken_paths import break_path, heal_path, node_of, put_prober
from tests.support.cluster import CLUSTER, load, node
from tests.support.processes import wait_until
from tests.support.streams import entries

Capture = pytest.CaptureFixture[str]

pytestmark = pytest.mark.usefixtures("in_environment")

NODES = [node(i, 5566, host=f"192.0.2.{i}") for i in (1, 2, 3)]


@pytest.fixture
def cluster(settings: Settings, redis_client: redis.Redis) -> Settings:
    """Three hosts, of which 1 and 3 have sent to node 2."""
    load(settings, NODES)
    for sender in (1, 3):
        redis_client.hset(keys.stats(sender), f"1/2/{node_of(settings, 2).generation}/sent", 5)
        redis_client.hset(keys.counters(sender), mapping={"sequence": 5, "1:bin": 5})
    return settings


@pytest.fixture
def context(cluster: Settings) -> Iterator[Context]:
    with closing(Context(cluster)) as made:
        yield made


def printed(capsys: Capture, *words: str) -> str:
    assert main([*words]) == 0
    return capsys.readouterr().out


def as_json(capsys: Capture, *words: str) -> dict[str, object]:
    found: dict[str, object] = json.loads(printed(capsys, *words))
    return found


def listed(capsys: Capture, *words: str) -> dict[int, dict[str, object]]:
    found = json.loads(printed(capsys, "list", "--json", *words))
    return {item["machine_id"]: item for item in found["clusters"][0]["nodes"]}


# -- list --------------------------------------------------------------------------------------


def test_list_all_paths_up_has_no_column(cluster: Settings, capsys: Capture) -> None:
    assert "Reached by" not in printed(capsys, "list")
    assert listed(capsys)[2]["reached_by"] == listed(capsys)[2]["live_senders"] == 2
    assert listed(capsys)[1]["reached_by"] is None


def test_list_broken_path_shows_verdict_and_reach(cluster: Settings, capsys: Capture) -> None:
    break_path(cluster, 1, 2)
    lines = printed(capsys, "list").splitlines()
    assert "Reached by" in next(line for line in lines if "Enabled in" in line)
    assert re.search(r"2 +bin:192.0.2.2:5566 +up +0/3 +1 of 2", "\n".join(lines))
    node = listed(capsys)[2]
    assert (node["condition"], node["verdict"]) == ("up", "up")
    assert (node["reached_by"], node["live_senders"]) == (1, 2)


def test_list_verdict_not_up_is_reached_by_none(
    cluster: Settings, context: Context, capsys: Capture
) -> None:
    context.nodes.command(CLUSTER, 2, Event.SUSPECTED, Cause("test"))
    node = listed(capsys)[2]
    assert (node["verdict"], node["reached_by"], node["live_senders"]) == ("probing", 0, 2)


def test_list_seen_by_shows_view_of_sender(cluster: Settings, capsys: Capture) -> None:
    break_path(cluster, 1, 2, times=3)
    shown = printed(capsys, "list", "--seen-by", "1")
    assert "Cluster 1, protocol bin, as 1 sees it" in shown
    assert re.search(r"2 +bin:192.0.2.2:5566 +disabled +3/3 +\d+ s", shown)
    assert "Reached by" not in shown
    assert re.search(r"2 +bin:192.0.2.2:5566 +up +0/3", printed(capsys, "list", "--seen-by", "3"))
    node = listed(capsys, "--seen-by", "1")[2]
    assert (node["condition"], node["verdict"], node["state"]) == ("disabled", "up", 2)
    assert (node["no_tries"], node["reached_by"]) == (3, 1)


def test_list_seen_by_unknown_sender_is_an_error(cluster: Settings, capsys: Capture) -> None:
    assert main(["list", "--seen-by", "9"]) == 1
    assert capsys.readouterr().err == "clusterer: no cluster has a node 9\n"


def test_list_sender_without_node_or_up_is_not_live(
    cluster: Settings, context: Context, capsys: Capture
) -> None:
    context.nodes.command(CLUSTER, 3, Event.SUSPECTED, Cause("test"))
    assert listed(capsys)[2]["live_senders"] == 1
    break_path(cluster, 3, 2)
    assert listed(capsys)[2]["live_senders"] == 2


# -- paths -------------------------------------------------------------------------------------


def test_paths_all_up_says_so(cluster: Settings, capsys: Capture) -> None:
    assert printed(capsys, "paths") == "All paths are up.\n"
    assert as_json(capsys, "paths", "--json")["paths"] == []


def test_paths_shows_since_when_and_why(cluster: Settings, capsys: Capture) -> None:
    break_path(cluster, 1, 2)
    break_path(cluster, 1, 2)
    break_path(cluster, 3, 1, reason="cannot connect: Connection refused", times=3)
    shown = printed(capsys, "paths")
    assert "Paths of cluster 1, protocol bin" in shown
    assert re.search(r"1 +2 +probing +2/3 +[\d:]{8} +0 s ago +up +send failed: did not", shown)
    assert re.search(r"3 +1 +disabled +3/3 ", shown)
    assert max(map(len, shown.splitlines())) <= 80


def test_paths_json_has_all_fields(cluster: Settings, capsys: Capture) -> None:
    break_path(cluster, 1, 2)
    break_path(cluster, 1, 2)
    found = json.loads(printed(capsys, "paths", "--json"))
    (path,) = found["paths"]
    assert 0 <= found["now"] - path.pop("since") < 20
    assert 0 <= found["now"] - path.pop("last_attempt") < 20
    assert path == {
        "cluster_id": 1,
        "protocol": "bin",
        "sender": 1,
        "machine_id": 2,
        "url": "bin:192.0.2.2:5566",
        "condition": "probing",
        "verdict": "up",
        "no_tries": 2,
        "failed_attempts": 3,
        "reason": "send failed: did not answer for 2 s",
    }


@pytest.mark.parametrize(
    ("options", "pairs"),
    [
        ((), [(1, 2), (3, 1), (3, 2)]),
        (("--sender", "1"), [(1, 2)]),
        (("--node", "2"), [(1, 2), (3, 2)]),
        (("--node", "2", "--sender", "3"), [(3, 2)]),
        (("--cluster", "2"), []),
    ],
)
def test_paths_options_select(
    cluster: Settings, capsys: Capture, options: tuple[str, ...], pairs: list[tuple[int, int]]
) -> None:
    for sender, machine_id in ((1, 2), (3, 2), (3, 1)):
        break_path(cluster, sender, machine_id)
    found = json.loads(printed(capsys, "paths", "--json", *options))
    assert [(item["sender"], item["machine_id"]) for item in found["paths"]] == pairs


def test_paths_record_of_other_epoch_is_not_shown(
    cluster: Settings, context: Context, capsys: Capture
) -> None:
    break_path(cluster, 1, 2)
    context.nodes.command(CLUSTER, 2, Event.SET_UP, Cause("test"))
    assert printed(capsys, "paths") == "All paths are up.\n"


def test_paths_fallen_verdict_has_time_of_its_event(
    cluster: Settings, context: Context, capsys: Capture
) -> None:
    """A failure with which the verdict falls is an event of the node, not of the path.

    An earlier failure of the path is none of it, even in the ms in which the node became up.
    """
    break_path(cluster, 1, 2)
    context.nodes.command(CLUSTER, 2, Event.SET_UP, Cause("test"))
    up, _ = entries(context.redis, keys.events(1))[-1]
    ((_, earlier),) = entries(context.redis, keys.path_events(1))
    context.redis.delete(keys.path_events(1))
    context.redis.xadd(keys.path_events(1), earlier, id=up)  # type: ignore[arg-type]
    wait_until(lambda: context.paths.now_ms() > int(up.partition(b"-")[0]))
    context.nodes.command(CLUSTER, 2, Event.SUSPECTED, Cause("test"))
    break_path(cluster, 1, 2)
    (path,) = json.loads(printed(capsys, "paths", "--json"))["paths"]
    fell, _ = entries(context.redis, keys.events(1))[-1]
    assert path["verdict"] == "probing"
    assert path["since"] == int(fell.partition(b"-")[0]) / 1000


def test_paths_event_out_of_stream_has_no_time(cluster: Settings, capsys: Capture) -> None:
    break_path(cluster, 1, 2)
    with closing(Context(cluster)) as context:
        context.redis.delete(keys.path_events(1))
    assert json.loads(printed(capsys, "paths", "--json"))["paths"][0]["since"] is None
    assert re.search(r"1/3 +\? +0 s ago", printed(capsys, "paths"))


# -- events ------------------------------------------------------------------------------------


def test_events_paths_shows_changes_of_paths(cluster: Settings, capsys: Capture) -> None:
    break_path(cluster, 1, 2)
    heal_path(cluster, 1, 2)
    break_path(cluster, 3, 1)
    first, second, third = printed(capsys, "events", "--paths").splitlines()
    assert first.endswith(
        "cluster 1:bin path 1 -> 2 (bin:192.0.2.2:5566): up -> probing, tries 1/3: send failed by "
        "delivery of sender 1: send failed: did not answer for 2 s"
    )
    assert "path 1 -> 2 (bin:192.0.2.2:5566): probing -> up" in second
    assert "path 3 -> 1 " in third
    assert len(printed(capsys, "events", "--paths", "--node", "2").splitlines()) == 2
    assert len(printed(capsys, "events", "--paths", "--node", "3").splitlines()) == 1
    found = json.loads(printed(capsys, "events", "--paths", "--json", "--last", "1"))
    assert (found["sender"], found["machine_id"], found["after"]) == (3, 1, "probing")


def test_events_without_paths_shows_nodes_only(cluster: Settings, capsys: Capture) -> None:
    break_path(cluster, 1, 2)
    assert "path" not in printed(capsys, "events")


# -- metrics -----------------------------------------------------------------------------------


def series(context: Context, name: str) -> dict[tuple[str, ...], float]:
    (metric,) = (m for m in ClusterCollector(context).collect() if m.name == name)
    return {tuple(s.labels[k] for k in sorted(s.labels)): s.value for s in metric.samples}


def test_metrics_count_broken_paths_per_node(cluster: Settings, context: Context) -> None:
    break_path(cluster, 1, 2)
    break_path(cluster, 3, 2)
    counts = series(context, "clusterer_broken_paths")
    assert counts["1", "2", "bin", "bin:192.0.2.2:5566"] == 2
    assert counts["1", "1", "bin", "bin:192.0.2.1:5566"] == 0
    assert series(context, "clusterer_path_broken") == {
        ("1", "2", "bin", "1"): 1,
        ("1", "2", "bin", "3"): 1,
    }


def test_metrics_name_few_paths_of_up_nodes_only(cluster: Settings, context: Context) -> None:
    load(cluster, [*NODES, *(node(i, 5566, host=f"192.0.2.{i}") for i in range(10, 35))])
    for sender in range(10, 35):
        break_path(cluster, sender, 2)
    assert len(series(context, "clusterer_path_broken")) == MOST_PATHS == 20
    assert series(context, "clusterer_broken_paths")["1", "2", "bin", "bin:192.0.2.2:5566"] == 25
    context.nodes.command(CLUSTER, 2, Event.SUSPECTED, Cause("test"))
    assert series(context, "clusterer_path_broken") == {}
    assert series(context, "clusterer_broken_paths")["1", "2", "bin", "bin:192.0.2.2:5566"] == 25


# -- live views, doctor ------------------------------------------------------------------------


def test_live_reader_sees_broken_paths(cluster: Settings, context: Context) -> None:
    reader = Reader(context)
    assert reader.read().paths == ()
    break_path(cluster, 1, 2)
    (found,) = rows(None, reader.read())
    row = next(item for item in found.rows if item.node.machine_id == 2)
    assert [item.sender for item in row.broken] == [1]
    assert row.troubled
    assert row.reach == (1, 2)
    heal_path(cluster, 1, 2)
    assert reader.read().paths == ()


def test_doctor_names_broken_link(cluster: Settings, context: Context) -> None:
    for machine_id in (1, 2, 3):
        put_prober(cluster, machine_id)
    assert [f.level for f in doctor.paths.check(context)] == [Level.OK]
    break_path(cluster, 1, 2)
    (found,) = doctor.paths.check(context)
    assert found.level is Level.ERROR
    assert found.text == (
        "the link between hosts 192.0.2.1 and 192.0.2.2 is broken: 1 does not reach node 2 (send "
        "failed: did not answer for 2 s)"
    )


def test_doctor_dead_node_without_traffic_is_told_by_event(
    cluster: Settings, context: Context
) -> None:
    for machine_id in (1, 2, 3):
        put_prober(cluster, machine_id)
    cause = Cause("prober 1", "ping failed: Connection refused")
    context.nodes.observe(node_of(cluster, 2), Event.SUSPECTED, cause)
    (found,) = doctor.paths.check(context)
    assert found.text.endswith("is dead: ping failed: Connection refused")


def test_backlog_behind_broken_path_is_waiting(
    cluster: Settings, context: Context, redis_client: redis.Redis
) -> None:
    from clusterer.services.status import node_list  # noqa: PLC0415

    place = f"1/2/{node_of(cluster, 2).generation}"
    redis_client.hset(keys.committed_count(1), place, 2)
    before = {item.sender: item for item in node_list.sender_backlogs(node_list.run(context))}
    assert (before[1].packets, before[1].waiting) == (3, 0)
    break_path(cluster, 1, 2)
    after = {item.sender: item for item in node_list.sender_backlogs(node_list.run(context))}
    assert (after[1].packets, after[1].waiting) == (0, 3)
