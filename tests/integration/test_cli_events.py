"""`clusterer events` and `set-status --reason` against a real Redis."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from collections.abc import Callable

import pytest
import redis

from clusterer.cli import main
from clusterer.settings import Settings
from clusterer.store import keys
from clusterer.store.audit import PAGE, AuditStore
from tests.support.processes import spawn
from tests.support.redis_server import RedisServer
from tests.support.seeding import make_node, put_node

Capture = pytest.CaptureFixture[str]


pytestmark = pytest.mark.usefixtures("in_environment")


def put_event(client: redis.Redis, at_s: float, *, cluster: int = 1, machine: int = 2) -> None:
    fields: dict[str | bytes, str | int] = {
        "protocol": "bin",
        "machine_id": machine,
        "url": f"bin:127.0.0.{machine}:1",
        "event": "probe failed",
        "by": "probe",
        "reason": "",
        "before": "probing",
        "after": "disabled",
        "no_tries": 3,
        "failed_attempts": 3,
    }
    client.xadd(keys.events(cluster), fields, id=f"{int(at_s * 1000)}-*")  # type: ignore[arg-type]


def lines(capsys: Capture) -> list[str]:
    return capsys.readouterr().out.splitlines()


def test_set_status_records_who_where_and_why(redis_client: redis.Redis, capsys: Capture) -> None:
    put_node(redis_client, make_node(2))
    assert main(["set-status", "1", "2", "0", "bin", "--reason", " kernel update "]) == 0
    assert main(["set-status", "1", "2", "1", "bin"]) == 0
    capsys.readouterr()
    assert main(["events"]) == 0
    first, second = lines(capsys)
    assert re.search(r"up -> down, .*set down by operator \S+@\S+: kernel update$", first)
    assert re.search(r"down -> up, .*set up by operator \S+@\S+$", second)


def test_set_status_reason_in_other_encoding_is_recorded(
    redis_client: redis.Redis, capsys: Capture
) -> None:
    """Bytes that are not UTF-8 come as surrogates."""
    put_node(redis_client, make_node(2))
    assert main(["set-status", "1", "2", "0", "bin", "--reason", "St\udcf6rung"]) == 0
    assert main(["set-status", "1", "2", "1", "bin", "--reason", "x" * 501]) == 1
    assert "at most 500 fit" in capsys.readouterr().err
    assert main(["events"]) == 0
    (line,) = lines(capsys)
    assert line.endswith(": St?rung")


def test_events_of_clusters_are_merged_by_time(redis_client: redis.Redis, capsys: Capture) -> None:
    now = time.time()
    for index in range(6):
        put_event(redis_client, now - 60 + index, cluster=1 + index % 2, machine=10 + index)
    assert main(["events", "--json"]) == 0
    found = [json.loads(line) for line in lines(capsys)]
    assert [item["machine_id"] for item in found] == [10, 11, 12, 13, 14, 15]
    assert [item["cluster_id"] for item in found] == [1, 2, 1, 2, 1, 2]


@pytest.mark.parametrize(
    ("options", "machines"),
    [
        (["--since", "2h"], [3, 2]),
        (["--since", "2d"], [2, 3, 2]),
        (["--node", "2"], [2, 2]),
        (["--node", "2", "--since", "1h"], [2]),
        (["--last", "1"], [2]),
        (["--last", "0"], []),
        (["--cluster", "2"], [3]),
        (["--cluster", "9"], []),
    ],
)
def test_events_options_select_events(
    redis_client: redis.Redis, capsys: Capture, options: list[str], machines: list[int]
) -> None:
    now = time.time()
    put_event(redis_client, now - 90_000, machine=2)
    put_event(redis_client, now - 7000, machine=3, cluster=2)
    put_event(redis_client, now - 10, machine=2)
    assert main(["events", "--json", *options]) == 0
    assert [json.loads(line)["machine_id"] for line in lines(capsys)] == machines


def test_events_of_several_pages_are_read(redis_client: redis.Redis, redis_url: str) -> None:
    start = time.time() - 3600
    for index in range(PAGE * 2 + 1):
        put_event(redis_client, start + index / 1000, machine=index + 1)
    store = AuditStore(Settings(redis_url=redis_url), redis_client)
    found = [event.machine_id for event in store.newest_first(store.ends([1]))]
    assert found == list(range(PAGE * 2 + 1, 0, -1))


def test_events_none_is_said_without_error(redis_client: redis.Redis, capsys: Capture) -> None:
    assert main(["events", "--since", "1h"]) == 0
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "No events since" in captured.err
    assert main(["events", "--node", "7", "--cluster", "2"]) == 0
    assert capsys.readouterr().err == "No events of node 7 in cluster 2.\n"


def test_events_in_pipe_have_no_colours_and_one_line_each(
    redis_client: redis.Redis, capsys: Capture
) -> None:
    put_event(redis_client, time.time())
    assert main(["events"]) == 0
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert out.count("\n") == 1


def test_events_invalid_time_is_error_of_one_line(
    redis_client: redis.Redis, capsys: Capture
) -> None:
    assert main(["events", "--since", "soon"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_events_follow_shows_new_clusters_and_survives_outage(
    own_redis_server: Callable[[], RedisServer],
) -> None:
    server = own_redis_server()
    environment = {"CLUSTERER_REDIS_URL": server.url}
    with server.client() as client:
        put_event(client, time.time(), machine=1)
        with spawn(["-m", "clusterer", "events", "--follow"], environment) as process:
            process.wait_for_output("node 1 ")
            put_event(client, time.time(), machine=2)
            process.wait_for_output("node 2 ")
            put_event(client, time.time(), machine=3, cluster=7)
            process.wait_for_output("cluster 7:bin node 3 ")
            server.restart()
            process.wait_for_output("Redis is back")
            put_event(client, time.time(), machine=4)
            process.wait_for_output("node 4 ")
            os.kill(process.pid, signal.SIGINT)
            assert process.wait() == 0
            assert len(re.findall(r"node \d ", process.output())) == 4
