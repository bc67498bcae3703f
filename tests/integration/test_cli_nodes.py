"""`clusterer list` and `set-status`, in this process, against a real Redis."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import time
from typing import cast

import pytest
import redis

from clusterer.cli import main
from clusterer.membership import State
from clusterer.store import keys
from tests.support.processes import LATE_S, child_environment
from tests.support.seeding import make_node, put_node

Capture = pytest.CaptureFixture[str]


SETTINGS = {"server_id": 1}
pytestmark = pytest.mark.usefixtures("in_environment")


def put_example(client: redis.Redis) -> None:
    now = int(time.time())
    put_node(client, make_node(1))
    put_node(client, make_node(2, state=State.PROBING, no_tries=1, last_attempt=now))
    put_node(
        client,
        make_node(3, state=State.PROBING, no_tries=3, last_attempt=now - 10, duration=40),
    )
    put_node(client, make_node(4, state=State.DOWN, url="bin:" + "x" * 54 + ":65535"))
    put_node(client, make_node(5, cluster_id=2))


def test_list_shows_every_cluster_and_node(redis_client: redis.Redis, capsys: Capture) -> None:
    put_example(redis_client)
    assert main(["list"]) == 0
    out = capsys.readouterr().out
    assert "Cluster 1, protocol bin" in out
    assert "Cluster 2, protocol bin" in out
    rows = [line for line in out.splitlines() if re.search(r"bin:", line)]
    states = [re.search(r"\b(up|probing|disabled|down)\b", row) for row in rows]
    assert [found and found[1] for found in states] == ["up", "probing", "disabled", "down", "up"]
    assert "* 1" in rows[0]
    assert "1/3" in rows[1]
    assert re.search(r"3/3 .*\b(29|30) s", rows[2])


def test_list_in_pipe_has_no_colours_and_80_columns(
    redis_client: redis.Redis, capsys: Capture
) -> None:
    put_example(redis_client)
    redis_client.hset(keys.counters(1), "1:bin", 10**9)
    names = ("sent", "failed", "skipped", "lost")
    redis_client.hset(keys.stats(1), mapping={f"1/2/1/{name}": 10**9 for name in names})
    redis_client.hset(keys.committed_count(1), "1/2/1", 1)
    assert main(["list"]) == 0
    out = capsys.readouterr().out
    assert re.search(r" 1 +2 +999M +- +1000M +1000M +1000M +1000M +never", out)
    assert "\x1b" not in out
    assert max(map(len, out.splitlines())) <= 80
    long_url = "".join(re.findall(r"x+", out))
    assert len(long_url) >= 54


def test_list_control_characters_are_escaped(redis_client: redis.Redis, capsys: Capture) -> None:
    put_node(redis_client, make_node(2, url="bin:\x1b[31m:1", description="\x1b[2J\x07\nB \u202e"))
    assert main(["list"]) == 0
    out = capsys.readouterr().out
    assert "bin: [31m:1" in out
    assert all(line.isprintable() for line in out.split("\n"))
    assert main(["set-status", "1", "\x1b[2J", "1", "bin"]) == 2
    assert capsys.readouterr().err.rstrip("\n").isprintable()


def test_list_closed_pipe_ends_silently(redis_client: redis.Redis, redis_url: str) -> None:
    put_example(redis_client)
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-m", "clusterer", "list"],
        stdout=writing,
        stderr=subprocess.PIPE,
        env=child_environment({"CLUSTERER_REDIS_URL": redis_url}),
        check=False,
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, b"")


def test_list_json_has_every_field(redis_client: redis.Redis, capsys: Capture) -> None:
    put_example(redis_client)
    assert main(["list", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    first, second = found["clusters"]
    assert (first["cluster_id"], first["protocol"], second["cluster_id"]) == (1, "bin", 2)
    assert [node["machine_id"] for node in first["nodes"]] == [1, 2, 3, 4]
    own, probing, disabled, down = first["nodes"]
    assert own["own"]
    assert not probing["own"]
    assert (probing["condition"], probing["state"], probing["no_tries"]) == ("probing", 2, 1)
    assert probing["enabled_in_s"] is None
    assert disabled["condition"] == "disabled"
    assert 30 - LATE_S <= disabled["enabled_in_s"] <= 30
    assert (down["condition"], down["state"]) == ("down", 0)


def test_list_shows_backlog_and_losses_of_sender(
    redis_client: redis.Redis, capsys: Capture
) -> None:
    put_node(redis_client, make_node(1, generation=7))
    put_node(redis_client, make_node(2, generation=8))
    put_node(redis_client, make_node(3, generation=9))
    redis_client.hset(keys.counters(1), mapping={"sequence": 100, "1:bin": 90})
    redis_client.hset(keys.committed_count(1), mapping={"1/2/8": 70, "1/3/9": 90})
    redis_client.hset(keys.committed(1), mapping={"1/2/8": 80, "1/3/9": 100})
    seconds, micros = redis_client.time()
    now_ms = seconds * 1000 + micros // 1000
    for sequence, age_ms in ((80, 90_500), (90, 72_500), (100, 4_500)):
        redis_client.xadd(keys.log(1), {"frames": b"x"}, f"{sequence}-{now_ms - age_ms}")
    redis_client.hset(keys.stats(1), "1/3/9/last_delivered", now_ms - 150_000)
    redis_client.hset(
        keys.stats(1),
        mapping={"1/2/8/sent": 60, "1/2/8/failed": 1, "1/2/8/skipped": 4, "1/2/8/lost": 6},
    )
    assert main(["list", "--json", "--traffic"]) == 0
    to_2, to_3 = json.loads(capsys.readouterr().out)["traffic"]
    assert (to_2["sender"], to_2["machine_id"], to_2["backlog"]) == (1, 2, 20)
    assert [to_2[name] for name in ("sent", "failed", "skipped", "lost")] == [60, 1, 4, 6]
    assert 72.5 <= to_2["oldest_s"] < 75 + LATE_S, "the entry after its committed offset"
    assert (to_2["last_delivered"], to_3["last_delivered"]) == ("", str(now_ms - 150_000))
    assert (to_3["backlog"], to_3["oldest_s"]) == (0, None)
    assert main(["list", "--traffic"]) == 0
    out = capsys.readouterr().out
    assert re.search(r"(?m)^ *1 +2 +20 +1 min +60 +1 +4 +6 +never", out)
    assert re.search(r"(?m)^ *1 +3 +0 +- +0 +0 +0 +0 +2 min ago", out)


def test_list_without_nodes_gives_advice(capsys: Capture) -> None:
    assert main(["list"]) == 0
    assert "clusterer reload" in capsys.readouterr().out


@pytest.mark.parametrize("machine", ["1", "2"], ids=["own row", "a peer"])
def test_set_status_reaches_every_row(
    redis_client: redis.Redis, capsys: Capture, machine: str
) -> None:
    put_example(redis_client)
    key = keys.node(1, "bin", int(machine))
    assert main(["set-status", "1", machine, "0", "bin"]) == 0
    assert "is down" in capsys.readouterr().out
    assert redis_client.hget(key, "state") == b"0"
    assert main(["set-status", "1", machine, "1"]) == 0
    assert main(["set-status", "1", machine, "1", "BIN"]) == 0
    assert "is up" in capsys.readouterr().out
    assert redis_client.hmget(key, ["state", "no_tries"]) == [b"1", b"0"]


def test_audit_names_operator(redis_client: redis.Redis) -> None:
    put_example(redis_client)
    assert main(["set-status", "1", "2", "0", "bin"]) == 0
    ((_, event),) = cast(
        "list[tuple[bytes, dict[bytes, bytes]]]", redis_client.xrange(keys.events(1))
    )
    assert re.fullmatch(rb"operator .+@.+", event[b"by"])
    assert (event[b"before"], event[b"after"]) == (b"probing", b"down")


@pytest.mark.parametrize(
    ("hands", "shown"),
    [("alice", " (sudo by alice)"), ("root", ""), ("al\udcffce", " (sudo by al?ce)")],
)
def test_audit_under_sudo_names_real_user(
    redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch, hands: str, shown: str
) -> None:
    put_node(redis_client, make_node(2))
    monkeypatch.setenv("LOGNAME", "root")
    monkeypatch.setenv("SUDO_USER", hands)
    assert main(["set-status", "1", "2", "0", "bin"]) == 0
    (event,) = cast("list[tuple[bytes, dict[bytes, bytes]]]", redis_client.xrange(keys.events(1)))
    assert event[1][b"by"].decode() == f"operator root@{socket.gethostname()}{shown}"


@pytest.mark.parametrize("where", [("1", "9"), ("9", "1")], ids=["machine", "cluster"])
def test_unknown_node_is_an_error_of_one_line(
    redis_client: redis.Redis, capsys: Capture, where: tuple[str, str]
) -> None:
    put_example(redis_client)
    assert main(["set-status", *where, "0", "bin"]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert f"cluster {where[0]}:bin has no node {where[1]}" in captured.err


@pytest.mark.parametrize(
    "arguments",
    [
        ["set-status", "1", "2", "2", "bin"],
        ["set-status", "0", "2", "1", "bin"],
        ["set-status", "1", "x", "1", "bin"],
        ["set-status", "1", "2"],
    ],
)
def test_wrong_usage_exits_with_2(capsys: Capture, arguments: list[str]) -> None:
    assert main(arguments) == 2
    said = capsys.readouterr().err
    assert said.startswith("clusterer: ")
    assert "Usage: clusterer set-status" in said
    assert "--help` says more" in said
    assert said.count("\n") == 1


def test_bad_protocol_is_an_error(capsys: Capture) -> None:
    assert main(["set-status", "1", "2", "1", "b/n"]) == 1
    assert "protocol must be a name" in capsys.readouterr().err
