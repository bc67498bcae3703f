"""Findings of the doctor from given data; no server runs."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest

from clusterer.jobs.fleet import Fleet, QueueInfo, WorkerInfo
from clusterer.services import Context
from clusterer.services.doctor import Level, clocks, fleet, network, redis_server
from clusterer.settings import MAINTENANCE_QUEUE, Settings
from scheduler.plan import periodic_jobs
from tests.support.cluster import node

GOOD = {
    "redis_version": "7.0.15",
    "role": "master",
    "aof_enabled": 1,
    "aof_last_write_status": "ok",
    "aof_last_bgrewrite_status": "ok",
    "maxmemory_policy": "noeviction",
    "maxmemory": 0,
    "used_memory": 2**20,
}


class FakeRedis:
    def __init__(self, info: dict[str, Any], fsync: str = "everysec") -> None:
        self._info, self._fsync = info, fsync

    def time(self) -> tuple[int, int]:
        return 1000, 0

    def info(self) -> dict[str, Any]:
        return self._info

    def config_get(self, name: str) -> dict[str, str]:
        parameters = {"stop-writes-on-bgsave-error": "yes", "save": "3600 1"}
        return {name: self._fsync and parameters.get(name, self._fsync)}


def levels(info: dict[str, Any], fsync: str = "everysec") -> dict[str, Level]:
    context = SimpleNamespace(settings=Settings(), redis=FakeRedis(info, fsync))
    found = list(redis_server.check(cast(Context, context)))
    assert [item.check for item in found] == list(redis_server.CHECKS)
    for item in found:
        assert bool(item.advice) == (item.level is not Level.OK)
    return {item.check: item.level for item in found if item.level is not Level.OK}


@pytest.mark.parametrize(
    ("changes", "check", "level"),
    [
        ({"redis_version": "6.0.16"}, "redis", Level.ERROR),
        ({"role": "slave"}, "redis", Level.ERROR),
        ({"cluster_enabled": 1}, "redis", Level.ERROR),
        ({"aof_enabled": 0}, "redis persistence", Level.ERROR),
        ({"aof_last_write_status": "err"}, "redis persistence", Level.ERROR),
        ({"rdb_last_bgsave_status": "err"}, "redis persistence", Level.ERROR),
        ({"aof_last_bgrewrite_status": "err"}, "redis persistence", Level.WARN),
        ({"maxmemory_policy": "allkeys-lru"}, "redis eviction", Level.ERROR),
        ({"maxmemory_policy": "volatile-ttl", "maxmemory": 2**30}, "redis eviction", Level.ERROR),
        ({"maxmemory": 2**20 + 1}, "redis memory", Level.WARN),
        ({"maxmemory": 2**20 - 1}, "redis memory", Level.ERROR),
    ],
)
def test_doctor_redis_that_can_lose_or_refuse_keys_is_named(
    changes: dict[str, Any], check: str, level: Level
) -> None:
    assert levels(GOOD | changes) == {check: level}


def test_doctor_redis_configured_well_has_no_finding() -> None:
    assert levels(GOOD) == {}
    assert levels(GOOD | {"redis_version": "7.2.4", "valkey_version": "8.1.0"}) == {}
    assert levels(GOOD | {"maxmemory": 2**30}) == {}
    assert levels(GOOD, fsync="") == {}, "CONFIG may be forbidden"


def test_doctor_unsynced_append_only_file_is_error() -> None:
    assert levels(GOOD, fsync="no") == {"redis persistence": Level.ERROR}


@pytest.mark.parametrize(
    ("ahead", "level"),
    [(0.0, Level.OK), (0.5, Level.OK), (2, Level.WARN), (-2, Level.WARN), (60, Level.ERROR)],
)
def test_doctor_clocks_may_differ_by_a_second(
    monkeypatch: pytest.MonkeyPatch, ahead: float, level: Level
) -> None:
    monkeypatch.setattr("time.time", lambda: 1000.0)
    nodes = SimpleNamespace(now=lambda: 1000.0 + ahead)
    context = SimpleNamespace(nodes=nodes, settings=Settings())
    first, second = clocks.check(cast(Context, context), redis=True)
    assert first.level is level
    assert second.level is Level.OK


ALIVE = WorkerInfo("w1", "sip1", "7", ("q",), busy=False, silent_s=2)
QUEUE = QueueInfo("q", jobs=0, failed=0, workers=(ALIVE,))
FLEET = Fleet(
    now=1000.0,
    delivery=(QUEUE,),
    maintenance=replace(QUEUE, name="m"),
    database=replace(QUEUE, name="d", workers=()),
    schedulers=1,
    schedule={job.job_id: 1000.5 for job in periodic_jobs(persistent_mode=False)},
)


def found(fleet_now: Fleet, **settings: Any) -> dict[str, Level]:
    backlog = SimpleNamespace(queues=list)
    context = SimpleNamespace(settings=Settings(**settings), backlog=backlog, jobs_client=None)
    return {
        item.check: item.level
        for item in fleet.check(cast(Context, context), fleet_now)
        if item.level is not Level.OK
    }


def test_doctor_workers_in_order_have_no_finding() -> None:
    assert found(FLEET) == {}


@pytest.mark.parametrize(
    ("queue", "level"),
    [
        (replace(QUEUE, workers=()), Level.ERROR),
        (replace(QUEUE, workers=(replace(ALIVE, silent_s=40),)), Level.ERROR),
        (replace(QUEUE, jobs=11), Level.WARN),
    ],
)
def test_doctor_queue_without_live_worker_is_error(queue: QueueInfo, level: Level) -> None:
    assert found(replace(FLEET, delivery=(queue,))) == {"delivery workers": level}
    assert found(replace(FLEET, maintenance=queue)) == {"maintenance workers": level}


def test_doctor_idle_queue_of_other_host_is_warning() -> None:
    two = (QUEUE, replace(QUEUE, name="old", workers=()))
    assert found(replace(FLEET, delivery=two)) == {"delivery workers": Level.WARN}


def test_doctor_says_when_an_unused_queue_goes() -> None:
    old = replace(QUEUE, name="old", workers=())
    finding = fleet._workers(old, "delivery", needed=False, suspended=False)
    assert "deletes the queue a day after its last use" in finding.text
    assert finding.advice.startswith("if an instance uses")
    assert "deletes" not in fleet._workers(old, "delivery", needed=True, suspended=False).text


@pytest.mark.parametrize(
    "changes",
    [{"schedulers": 0}, {"schedule": {}}, {"schedule": {"clusterer-probe": 990.0}}],
    ids=["none", "never", "stuck"],
)
def test_doctor_scheduler_without_tick_is_error(changes: dict[str, Any]) -> None:
    assert found(replace(FLEET, **changes)) == {"scheduler": Level.ERROR}


def test_doctor_persistent_mode_of_scheduler_differs_is_named() -> None:
    wrong = found(FLEET, persistent_mode=True)
    assert wrong == {"database workers": Level.ERROR, "scheduler": Level.ERROR}
    both = {job.job_id: 1000.5 for job in periodic_jobs(persistent_mode=True)}
    assert found(replace(FLEET, schedule=both)) == {"scheduler": Level.ERROR}


def test_doctor_busy_delivery_worker_is_no_finding() -> None:
    busy = replace(QUEUE, workers=(replace(ALIVE, busy=True),))
    assert network._unanswered(busy).level is Level.OK


def test_doctor_busy_maintenance_worker_is_asked() -> None:
    busy = replace(QUEUE, name=MAINTENANCE_QUEUE, workers=(replace(ALIVE, busy=True),))
    found = network._unanswered(busy)
    assert found.level is Level.WARN
    assert found.text == f"no worker of {MAINTENANCE_QUEUE} answered within 4 s"
    assert network._unanswered(QUEUE).level is Level.WARN


def test_doctor_unreachable_nodes_are_named_up_to_a_limit() -> None:
    nodes = [node(number) for number in range(1, 101)]
    errors = {f"1/{number}": "no answer" for number in range(1, 101)}
    lines = list(network.judged("x", "", {"tried": 100, "errors": errors}, nodes))
    assert len(lines) == 11
    assert all(item.level is Level.ERROR and item.advice for item in lines)
    assert "90 more" in lines[-1].text
    (line,) = network.judged("x", "", {"tried": 100, "errors": {}}, nodes)
    assert line.level is Level.OK
