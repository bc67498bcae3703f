"""`clusterer doctor` against real servers, sockets and workers."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import redis

from clusterer import jobs
from clusterer.cli import main
from clusterer.provisioning.table import NewRow
from clusterer.services import Context
from clusterer.services.admin import set_status
from clusterer.services.table import reload as reload_service
from clusterer.settings import Settings, as_environment
from clusterer.store import ClusterKey, keys
from clusterer.store.packets import PacketLog
from tests.support.frames import frame
from tests.support.mariadb_server import MariaDBServer
from tests.support.ports import free_port
from tests.support.processes import LATE_S, spawn, wait_until
from tests.support.provisioning import provision, sql
from tests.support.receiver import BinReceiver
from tests.support.redis_server import RedisServer

Capture = pytest.CaptureFixture[str]


SETTINGS = {"server_id": 1, "linger": 0.2}


def check_up(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> tuple[int, dict[str, list[dict[str, str]]]]:
    for name, value in as_environment(settings).items():
        monkeypatch.setenv(name, value)
    capsys.readouterr()
    code = main(["doctor", "--json"])
    captured = capsys.readouterr()
    assert captured.err == ""
    answer = json.loads(captured.out)
    assert answer["healthy"] == (code == 0)
    found: dict[str, list[dict[str, str]]] = {}
    for item in answer["checks"]:
        found.setdefault(item["check"], []).append(item)
    return code, found


def words(found: dict[str, list[dict[str, str]]]) -> dict[str, set[str]]:
    return {name: {item["level"] for item in items} for name, items in found.items()}


def test_doctor_healthy_system_has_no_finding(
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Capture,
    mariadb_url: str,
) -> None:
    chosen = Settings(**{**_fields(settings), "db_url": mariadb_url, "persistent_mode": True})
    context = Context(chosen)
    environment = as_environment(chosen)
    with BinReceiver() as first, BinReceiver() as second:
        rows = (NewRow(1, m, f"bin:127.0.0.1:{r.port}") for m, r in ((1, first), (2, second)))
        provision(context, *rows)
        reload_service.run(context)
        context.close()
        kinds = ("delivery", "maintenance", "database")
        with (
            spawn(["-m", "workers", kinds[0]], environment) as a,
            spawn(["-m", "workers", kinds[1]], environment) as b,
            spawn(["-m", "workers", kinds[2]], environment) as c,
            spawn(["-m", "scheduler"], environment) as scheduler,
        ):
            for worker in (a, b, c):
                worker.wait_for_output("takes jobs of")
            scheduler.wait_for_output("scheduler: now active")
            _, found = wait_until(lambda: _healthy(check_up(chosen, monkeypatch, capsys)))
    assert set().union(*words(found).values()) == {"ok"}, found
    assert len(found["nodes from workers"]) == 2
    assert "2 of 2" in found["nodes from here"][0]["text"]


def test_doctor_database_user_without_write_right_is_reported(
    settings: Settings,
    mariadb_url: str,
    mariadb_server: MariaDBServer,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Capture,
) -> None:
    context = Context(Settings(**{**_fields(settings), "db_url": mariadb_url}))
    provision(context, NewRow(1, 1, "bin:127.0.0.1:5566"))
    context.close()
    database, user = mariadb_url.rpartition("/")[2], "'reader'@'%'"
    mariadb_server.execute(
        f"CREATE USER {user} IDENTIFIED BY 'secret'", f"GRANT SELECT ON {database}.* TO {user}"
    )
    try:
        address = mariadb_url.rpartition("@")[2]
        reading = _fields(settings) | {"db_url": f"mysql://reader:secret@{address}"}
        _, found = check_up(Settings(**reading), monkeypatch, capsys)
        assert words(found)["table"] == {"ok"}
        _, found = check_up(Settings(**reading | {"persistent_mode": True}), monkeypatch, capsys)
        (finding,) = found["table"]
        assert finding["level"] == "error"
        assert "UPDATE command denied to user 'reader'" in finding["text"]
        assert "turn persistent_mode off" in finding["advice"]
        columns = "state, no_tries, last_attempt"
        grant = f"GRANT UPDATE ({columns}) ON {database}.clusterer TO {user}"
        mariadb_server.execute(grant)
        _, found = check_up(Settings(**reading | {"persistent_mode": True}), monkeypatch, capsys)
        assert words(found)["table"] == {"ok"}
    finally:
        mariadb_server.execute(f"DROP USER {user}")


def _healthy(result: tuple[int, Any]) -> tuple[int, Any] | None:
    """Workers are registered with RQ after a moment."""
    return result if result[0] == 0 else None


def _fields(settings: Settings) -> dict[str, Any]:
    return {name: getattr(settings, name) for name in Settings.__dataclass_fields__}


def test_doctor_without_servers_reports_each_check(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    away = Settings(
        redis_url=f"redis://127.0.0.1:{free_port()}", data_dir=str(tmp_path / "none"), server_id=1
    )
    started = time.monotonic()
    code, found = check_up(away, monkeypatch, capsys)
    assert time.monotonic() - started < 10 + LATE_S
    assert code == 1
    assert words(found)["redis"] == words(found)["table"] == {"error"}
    assert set().union(*words(found).values()) <= {"error", "skipped", "ok"}
    assert not (tmp_path / "none").exists(), "a check-up makes no file"


def test_doctor_checks_table_without_redis_and_vice_versa(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    context = Context(settings)
    provision(context, NewRow(1, 1, f"bin:127.0.0.1:{free_port()}"))
    context.close()
    away = Settings(**{**_fields(settings), "redis_url": f"redis://127.0.0.1:{free_port()}"})
    code, found = check_up(away, monkeypatch, capsys)
    assert (code, words(found)["table rows"]) == (1, {"ok"})
    gone = Settings(**{**_fields(settings), "db_url": "mysql://u:p@127.0.0.1:1/x"})
    code, found = check_up(gone, monkeypatch, capsys)
    assert (code, words(found)["redis"], words(found)["table"]) == (1, {"ok"}, {"error"})
    assert words(found)["scheduler"] == {"error"}, "the rest is checked all the same"


def test_doctor_redis_that_can_lose_keys_is_error(
    own_redis_server: Callable[[], RedisServer],
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Capture,
) -> None:
    server = own_redis_server()
    with server.client() as client:
        client.config_set("appendonly", "no")
        client.config_set("maxmemory-policy", "allkeys-lru")
    chosen = Settings(**{**_fields(settings), "redis_url": server.url})
    code, found = check_up(chosen, monkeypatch, capsys)
    assert code == 1
    assert words(found)["redis persistence"] == words(found)["redis eviction"] == {"error"}


def test_doctor_job_of_ended_worker_is_harmless(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    client = jobs.connect(settings)
    jobs.enqueue_delivery(settings.delivery_queue, client)
    queue = jobs.queue(settings.delivery_queue, client)
    job_id = queue.pop(None)
    assert job_id is not None
    client.hset(jobs.Job.key_for(job_id), "status", "started")
    client.zadd(queue.started_job_registry.key, {f"{job_id}:execution": 1})
    queue.started_job_registry.cleanup()
    _, found = check_up(settings, monkeypatch, capsys)
    (failed,) = found["failed jobs"]
    assert failed["level"] == "warn"
    assert failed["text"].endswith(
        "workers.deliver: its worker ended, or lost Redis, meanwhile; nothing is lost"
    )


def test_doctor_redis_refusing_writes_ends_no_check(
    own_redis_server: Callable[[], RedisServer],
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Capture,
) -> None:
    server = own_redis_server()
    chosen = Settings(**{**_fields(settings), "redis_url": server.url})
    with server.client() as client, spawn(["-m", "workers", "maintenance"], as_environment(chosen)):
        wait_until(lambda: client.smembers("rq:workers"))
        client.replicaof("127.0.0.1", "1")
        code, found = check_up(chosen, monkeypatch, capsys)
        client.replicaof("NO", "ONE")
    assert code == 1
    assert words(found)["redis"] == words(found)["nodes from workers"] == {"error"}
    assert found["nodes from workers"][0]["advice"] == "point redis_url at the primary server"
    assert words(found)["backlog"] == {"ok"}


def test_bad_rows_due_reloads_and_foreign_addresses_are_found(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    context = Context(settings)
    provision(context, NewRow(1, 1, "bin:192.0.2.1:5566"), NewRow(1, 2, "bin:127.0.0.1:1"))
    reload_service.run(context)
    sql(context, "UPDATE clusterer SET url = 'nonsense' WHERE machine_id = 2")
    sql(context, "DELETE FROM version")
    context.close()
    _, found = check_up(settings, monkeypatch, capsys)
    assert words(found)["table"] == {"warn"}
    assert words(found)["table rows"] == {"error"}
    assert "row 2" in found["table rows"][0]["text"]
    assert words(found)["table and redis"] == {"warn"}
    assert words(found)["addresses"] == {"warn"}
    assert "node 2 (bin:127.0.0.1:1) is at 127.0.0.1, a loopback" in found["addresses"][0]["text"]
    assert words(found)["own row"] == {"error"}
    assert "not an address of this host" in found["own row"][0]["text"]
    assert words(found)["nodes from here"] == {"error"}
    assert len(found["nodes from here"]) == 2


@pytest.mark.parametrize(
    ("statement", "level"),
    [
        ("UPDATE clusterer SET duration = 31 WHERE machine_id = 2", "warn"),
        ("UPDATE clusterer SET description = 'x' WHERE machine_id = 2", "warn"),
        ("UPDATE clusterer SET state = 0 WHERE machine_id = 2", "warn"),
        ("UPDATE clusterer SET url = 'nonsense'", "warn"),
        ("UPDATE clusterer SET id = id + 10", "warn"),
        ("UPDATE clusterer SET duration = 30", "ok"),
    ],
)
def test_doctor_reload_due_for_columns_not_for_redis_states(
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Capture,
    statement: str,
    level: str,
) -> None:
    context = Context(settings)
    provision(context, NewRow(1, 1, "bin:127.0.0.1:1"), NewRow(1, 2, "bin:127.0.0.2:1"))
    reload_service.run(context)
    set_status.run(context, 1, 1, 0, "bin", by="test")
    sql(context, statement)
    context.close()
    _, found = check_up(settings, monkeypatch, capsys)
    assert words(found)["table and redis"] == {level}


def test_doctor_advice_is_a_valid_command(
    settings: Settings,
    redis_client: redis.Redis,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Capture,
) -> None:
    """The own queue counts also where Redis has never seen of it."""
    context = Context(settings)
    provision(context, NewRow(1, 2, f"bin:127.0.0.1:{free_port()}"))
    reload_service.run(context)
    context.close()
    redis_client.sadd(keys.QUEUES, "another-host")
    own = Settings(**{**_fields(settings), "delivery_queue": "own queue"})
    _, found = check_up(own, monkeypatch, capsys)
    errors = [item for items in found.values() for item in items if item["level"] == "error"]
    commands = {command for item in errors for command in re.findall("`(.+?)`", item["advice"])}
    assert commands >= {
        "clusterer worker delivery --set delivery_queue='own queue'",
        "clusterer worker maintenance",
        "clusterer scheduler",
        "clusterer node --server-id 2",
        "clusterer set-status 1 2 0 bin",
    }


def test_doctor_server_id_without_row_is_error(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    _, found = check_up(settings, monkeypatch, capsys)
    assert words(found)["own row"] == {"error"}
    without_id = Settings(**{**_fields(settings), "server_id": 0})
    _, found = check_up(without_id, monkeypatch, capsys)
    assert words(found)["own row"] == {"skipped"}


def test_old_backlog_is_told_with_its_age(
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Capture,
    redis_client: redis.Redis,
) -> None:
    context = Context(settings)
    provision(context, *(NewRow(1, m, f"bin:127.0.0.1:{free_port()}") for m in (1, 2)))
    reload_service.run(context)
    context.close()
    PacketLog(settings, 1).append(ClusterKey(1, "bin"), [frame(1), frame(2)])
    _, found = check_up(settings, monkeypatch, capsys)
    assert words(found)["backlog"] == {"ok"}
    assert re.fullmatch(r"2 packets wait, the oldest for [0-4]\.\d s", found["backlog"][0]["text"])
    _age_log(redis_client, 60)
    _, found = check_up(settings, monkeypatch, capsys)
    (line,) = found["backlog"]
    assert line["level"] == "error"
    assert "sender 1: 2 packets wait, the oldest for 6" in line["text"]
    assert "clusterer worker delivery" in line["advice"]


def _age_log(client: redis.Redis, seconds: int) -> None:
    """Write sender 1's log again, with times of earlier packets."""
    entries: Any = client.xrange("clusterer:log:1")
    client.delete("clusterer:log:1")
    for entry_id, fields in entries:
        sequence, ms = entry_id.decode().split("-")
        client.xadd("clusterer:log:1", fields, id=f"{sequence}-{int(ms) - seconds * 1000}")
    node: Any = client.hget("clusterer:1:bin:node:2", "generation")
    client.hset("clusterer:1:bin:node:2", "generation", int(node) - 2 * seconds * 1000)


def test_doctor_in_pipe_prints_one_line_per_check(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    for name, value in as_environment(settings).items():
        monkeypatch.setenv(name, value)
    assert main(["doctor"]) == 1
    out = capsys.readouterr().out
    assert "\x1b" not in out
    *lines, last = out.splitlines()
    assert all(line.split()[0] in ("ok", "warn", "error", "skipped") for line in lines)
    assert all("->" in line for line in lines if line.split()[0] in ("warn", "error"))
    assert last.startswith(f"{len(lines)} checks: ")
