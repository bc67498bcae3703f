"""Wrong clocks and changed clocks under real servers: the report of doctor, and the delivery."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from clusterer.cli import main
from clusterer.membership import Condition, Event, Node, State
from clusterer.provisioning.table import NewRow
from clusterer.services import Context
from clusterer.services.table import reload as reload_service
from clusterer.settings import Settings, as_environment
from clusterer.store import Cause
from clusterer.store.packets import PacketLog
from tests.support.cluster import CLUSTER, delivering, load, node, node_for, numbers
from tests.support.frames import frame
from tests.support.mariadb_server import MariaDBServer
from tests.support.ports import free_port
from tests.support.processes import LATE_S, spawn, wait_until
from tests.support.provisioning import NODE_A, provision, sql
from tests.support.receiver import BinReceiver
from tests.support.redis_server import RedisServer

Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def shifted_redis() -> Iterator[RedisServer]:
    with RedisServer(shifted=True) as server:
        yield server


@pytest.fixture(scope="module")
def shifted_mariadb() -> Iterator[MariaDBServer]:
    with MariaDBServer(shifted=True) as server:
        yield server


@pytest.fixture
def context(shifted_redis: RedisServer, tmp_path: Path) -> Iterator[Context]:
    shifted_redis.clock.set(0)
    with shifted_redis.client() as client:
        client.flushall()
    settings = Settings(redis_url=shifted_redis.url, data_dir=str(tmp_path), linger=0.5)
    made = Context(settings)
    yield made
    made.close()


def read(context: Context, machine_id: int = 2) -> Node:
    found, _ = context.nodes.read(CLUSTER, machine_id)
    assert found is not None
    return found


# -- what doctor says --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("redis_s", "database_s", "levels", "redis_says", "database_says"),
    [
        (0, 0, ("ok", "ok"), "differs", "differs"),
        (30, 0, ("error", "ok"), "Redis is # s ahead of this host", "differs"),
        (-30, 0, ("error", "ok"), "Redis is # s behind this host", "differs"),
        (0, 30, ("ok", "error"), "differs", "the database is # s ahead of this host"),
        (0, -30, ("ok", "error"), "differs", "the database is # s behind this host"),
        (4, -4, ("warn", "warn"), "Redis is # s ahead of", "the database is # s behind"),
    ],
)
def test_doctor_says_whose_clock_is_off_and_by_how_much(  # noqa: PLR0917 - pytest names them
    context: Context,
    shifted_redis: RedisServer,
    shifted_mariadb: MariaDBServer,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Capture,
    redis_s: int,
    database_s: int,
    levels: tuple[str, str],
    redis_says: str,
    database_says: str,
) -> None:
    name = shifted_mariadb.create_database()
    for variable, value in as_environment(context.settings).items():
        monkeypatch.setenv(variable, value)
    monkeypatch.setenv("CLUSTERER_DB_URL", shifted_mariadb.url(name))
    shifted_redis.clock.set(redis_s)
    shifted_mariadb.clock.set(database_s)
    main(["doctor", "--json"])
    checks = {item["check"]: item for item in json.loads(capsys.readouterr().out)["checks"]}
    both = checks["clock of redis"], checks["clock of database"]
    assert tuple(item["level"] for item in both) == levels
    for item, says, off_s in zip(
        both, (redis_says, database_says), (redis_s, database_s), strict=True
    ):
        pattern = re.escape(says).replace(r"\#", r"(\d+\.\d)")
        found = re.match(pattern, item["text"])
        assert found, item
        if off_s:
            assert abs(float(found[1]) - abs(off_s)) < 1.0 + LATE_S
            assert "NTP" in item["advice"]


# -- what goes on whatever the time is -----------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("offset_s", [30, -30])
def test_clock_half_a_minute_off_changes_nothing(
    context: Context, shifted_redis: RedisServer, shifted_mariadb: MariaDBServer, offset_s: int
) -> None:
    shifted_redis.clock.set(offset_s)
    shifted_mariadb.clock.set(-offset_s)
    url = shifted_mariadb.url(shifted_mariadb.create_database())
    chosen = replace(context.settings, db_url=url, persistent_mode=True)
    persistent = Context(chosen)
    environment = as_environment(chosen)
    with ExitStack() as stack, BinReceiver() as receiver:
        url = f"bin:127.0.0.1:{receiver.port}"
        provision(persistent, NODE_A, NewRow(1, 2, url, failed_attempts=2, duration=2))
        reload_service.run(persistent)
        for kind in ("delivery", "maintenance", "database"):
            stack.enter_context(spawn(["-m", "workers", kind], environment))
        stack.enter_context(spawn(["-m", "scheduler"], environment))
        log = PacketLog(chosen, 1)
        log.append(CLUSTER, [frame(1)])
        wait_until(lambda: numbers(receiver) == [1])
        receiver.stop()
        log.append(CLUSTER, [frame(2)])
        wait_until(lambda: read(context).condition is Condition.DISABLED)
        disabled = read(context)
        assert abs(disabled.last_attempt - time.time() - offset_s) < 10
        rows = "SELECT state, last_attempt FROM clusterer WHERE machine_id = 2"
        wait_until(lambda: sql(persistent, rows) == [(2, disabled.last_attempt)])
        wait_until(lambda: read(context).state is State.UP)
    persistent.close()


@pytest.mark.slow
def test_clock_set_back_an_hour_delays_no_probe(
    context: Context, shifted_redis: RedisServer
) -> None:
    shifted_redis.clock.set(3600)
    environment = as_environment(context.settings)
    probing, disabled = free_port(), free_port()
    provision(
        context,
        NODE_A,
        NewRow(1, 2, f"bin:127.0.0.1:{probing}", failed_attempts=1000),
        NewRow(1, 3, f"bin:127.0.0.1:{disabled}", failed_attempts=1, duration=4),
    )
    reload_service.run(context)
    with (
        spawn(["-m", "workers", "maintenance"], environment),
        spawn(["-m", "scheduler"], environment),
    ):
        context.nodes.command(CLUSTER, 2, Event.SUSPECTED, Cause("test"))
        wait_until(lambda: read(context).no_tries >= 2, message="it is probed")
        context.nodes.command(CLUSTER, 3, Event.SUSPECTED, Cause("test"))
        assert read(context, 3).condition is Condition.DISABLED
        shifted_redis.clock.set(0)
        tries = read(context).no_tries
        wait_until(lambda: read(context).no_tries >= tries + 3, message="it is probed on")
        wait_until(lambda: read(context, 3).state is State.UP, message="it is enabled")


@pytest.mark.slow
def test_clock_jump_loses_no_packet(context: Context, shifted_redis: RedisServer) -> None:
    environment, log = as_environment(context.settings), PacketLog(context.settings, 1)
    with ExitStack() as stack, BinReceiver() as receiver:
        load(context.settings, [node(1), node_for(2, receiver)])
        for words in ("workers delivery", "workers maintenance", "scheduler"):
            stack.enter_context(spawn(["-m", *words.split()], environment))
        sent = 0
        for offset_s in (0, 30, 0, -30, 0):
            shifted_redis.clock.set(offset_s)
            for _ in range(50):
                log.append(CLUSTER, [frame(sent)])
                sent += 1
                time.sleep(0.01)
            wait_until(lambda: len(set(numbers(receiver))) == sent)  # noqa: B023 - waits here
        found = numbers(receiver)
        first = sorted(set(found), key=found.index)
        assert first == list(range(sent)), "in order, but for what came twice"


def test_clock_node_added_in_future_gets_first_packets(
    context: Context, shifted_redis: RedisServer
) -> None:
    shifted_redis.clock.set(600)
    with BinReceiver() as receiver, delivering(context.settings):
        load(context.settings, [node(1), node_for(2, receiver)])
        shifted_redis.clock.set(0)
        PacketLog(context.settings, 1).append(CLUSTER, [frame(1)])
        wait_until(lambda: numbers(receiver) == [1])
