"""Jobs that the scheduler's pure planner finds due."""

from __future__ import annotations

import math

import pytest

from clusterer.jobs.keys import PERIODIC_IDS
from scheduler.plan import PeriodicJob, make_plan, periodic_jobs

JOB = PeriodicJob("clusterer-probe", "workers.probe", "q", timeout_s=10)
NOW = 1000.0


@pytest.mark.parametrize(
    ("at", "again_at"),
    [
        pytest.param(None, 1001.0, id="never scheduled: now"),
        pytest.param(1000.0, 1001.0, id="just due"),
        pytest.param(999.7, 1000.7, id="late: keeps its rhythm"),
        pytest.param(999.0, 1001.0, id="late by a whole interval: a new rhythm"),
        pytest.param(1.0, 1001.0, id="hours late: runs once, not once per missed second"),
        pytest.param(1001.1, 1001.0, id="too far ahead: the clock was set back"),
        pytest.param(math.inf, 1001.0, id="never: a foreign value"),
    ],
)
def test_periodic_plan_due_job_runs(at: float | None, again_at: float) -> None:
    plan = make_plan([JOB], {JOB.job_id: at}, NOW)
    assert [job for job, _ in plan.due] == [JOB]
    assert plan.due[0][1] == pytest.approx(again_at)
    assert plan.next_at == pytest.approx(again_at)


@pytest.mark.parametrize("at", [1000.1, 1001.0])
def test_periodic_plan_job_not_due_waits(at: float) -> None:
    plan = make_plan([JOB], {JOB.job_id: at}, NOW)
    assert plan.due == ()
    assert plan.next_at == at


def test_periodic_plan_next_look_is_at_first_due_job() -> None:
    other = PeriodicJob("clusterer-sweep", "workers.sweep", "q", timeout_s=10)
    times = {JOB.job_id: 1000.4, other.job_id: 1000.0}
    plan = make_plan([JOB, other], times, NOW)
    assert plan.due == ((other, 1001.0),)
    assert plan.next_at == 1000.4


def test_periodic_plan_has_sync_in_persistent_mode_only() -> None:
    plain = {job.job_id for job in periodic_jobs(persistent_mode=False)}
    persistent = {job.job_id for job in periodic_jobs(persistent_mode=True)}
    assert plain == {"clusterer-probe", "clusterer-timeouts", "clusterer-sweep"}
    assert persistent - plain == {"clusterer-sync"}
    everything = periodic_jobs(persistent_mode=True, history_interval=10)
    assert {job.job_id for job in everything} - persistent == {"clusterer-history"}
    assert {job.job_id for job in everything} == PERIODIC_IDS


def test_periodic_plan_history_keeps_its_interval() -> None:
    (*_, history) = periodic_jobs(persistent_mode=False, history_interval=10)
    assert make_plan([history], {history.job_id: NOW}, NOW).next_at == NOW + 10
    assert make_plan([history], {history.job_id: NOW + 9.9}, NOW).due == ()
    (*_, hasty) = periodic_jobs(persistent_mode=False, history_interval=0.1)
    assert hasty.interval_s == 1


def test_periodic_plan_database_jobs_have_own_queue() -> None:
    queues = {job.job_id: job.queue for job in periodic_jobs(persistent_mode=True)}
    assert [i for i, queue in queues.items() if queue == queues["clusterer-sync"]] == [
        "clusterer-sync"
    ]
