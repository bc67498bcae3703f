"""The checks of RQ: workers per queue, scheduler, failed jobs, junk jobs, other applications."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence

from clusterer import jobs
from clusterer.jobs import Job, JunkReport, keys
from clusterer.jobs.fleet import LATE_S, SILENT_S, Fleet, QueueInfo, WorkerInfo
from clusterer.services.context import Context
from clusterer.services.doctor.finding import Finding, bounded, error, listed, ok, stamp, warn
from clusterer.settings import DEFAULT_DELIVERY_QUEUE

WORKERS = "workers"
SCHEDULER = "scheduler"
FAILED_JOBS = "failed jobs"
JUNK_JOBS = "junk jobs"
OTHER_APPLICATIONS = "other applications"
CHECKS = (WORKERS, SCHEDULER, FAILED_JOBS, JUNK_JOBS, OTHER_APPLICATIONS)

PILED_UP = 10
"""Waiting jobs of a queue above which its workers are too few."""


def check(context: Context, fleet: Fleet) -> Iterator[Finding]:
    """Check the processes that Redis knows."""
    if fleet.suspension is not None:
        yield _suspended(context, fleet)
    backlog = {state.queue: state for state in context.backlog.queues()}
    for queue in fleet.delivery:
        state = backlog.get(queue.name)
        work = bool(state and (state.pending or state.waiting))
        own = queue.name == context.settings.delivery_queue
        needed = bool(work or own or len(fleet.delivery) == 1)
        yield from _queue(fleet, queue, "delivery", needed=needed)
    yield from _queue(fleet, fleet.maintenance, "maintenance", needed=True)
    persistent = context.settings.persistent_mode
    yield from _queue(fleet, fleet.database, "database", needed=persistent)
    yield _scheduler(context, fleet)
    yield _failed(context, fleet)
    yield from _junk_jobs(fleet)
    yield _other_applications(fleet)


def _suspended(context: Context, fleet: Fleet) -> Finding:
    assert fleet.suspension is not None  # noqa: S101 - the caller looked
    left_s = fleet.suspension.left_s
    until = "" if left_s is None else f" until {stamp(fleet.now + left_s)}"
    text = (
        f"RQ is suspended{until}: no worker starts a job; nodes are not probed, and packets wait "
        "in the logs once the running delivery jobs have ended"
    )
    return error(WORKERS, text, f"run `{jobs.resume_command(context.settings)}`")


def _queue(fleet: Fleet, queue: QueueInfo, kind: str, *, needed: bool) -> Iterator[Finding]:
    if queue.strangers:
        yield _strangers(queue, kind)
    if needed or kind == "delivery":
        yield _workers(queue, kind, needed=needed, suspended=fleet.suspension is not None)


def _strangers(queue: QueueInfo, kind: str) -> Finding:
    text = (
        f"{_places(queue.strangers)} takes jobs of {queue.name} and is no worker of clusterer: "
        "these jobs do not run"
    )
    advice = (
        f"stop that worker, and start `clusterer worker {kind}`; RQ's own command needs "
        "`-w workers.Worker`; start a clusterer worker of an earlier version again"
    )
    return error(f"{kind} workers", text, advice)


def _places(workers: Sequence[WorkerInfo]) -> str:
    return listed([worker.place for worker in workers])


def _workers(queue: QueueInfo, kind: str, *, needed: bool, suspended: bool) -> Finding:
    name = f"{kind} workers"
    start = f"start `clusterer worker {kind}`"
    alive = [worker for worker in queue.workers if worker.silent_s < SILENT_S]
    if not alive and queue.workers:
        silent = queue.workers[0]
        text = f"{queue.name}: {silent.place} has been silent for {silent.silent_s} s or more"
        return error(name, text, f"check that process; if the process has ended, {start}")
    if not alive:
        text = f"no worker of clusterer takes jobs of {queue.name}"
        if kind == "delivery" and queue.name != DEFAULT_DELIVERY_QUEUE:
            start = start.removesuffix("`") + f" --set delivery_queue={shlex.quote(queue.name)}`"
        if not needed:
            text += (
                ", and no sender needs one: the sweep deletes the queue a day after its last use"
            )
            start = f"if an instance uses this queue, {start}; else do nothing"
        return (error if needed else warn)(name, text, start)
    text = f"{len(alive)} for {queue.name} ({_places(alive)})"
    if queue.jobs > PILED_UP and not suspended:
        return warn(name, f"{text}, but {queue.jobs} jobs wait", f"{start} in another process")
    return ok(name, text)


def _scheduler(context: Context, fleet: Fleet) -> Finding:
    late = fleet.last_tick_s
    start = "start `clusterer scheduler`"
    if not fleet.schedulers:
        return error(
            SCHEDULER, "no scheduler runs: no job probes nodes or mutes silent nodes", start
        )
    if late is None or late > LATE_S:
        said = "never" if late is None else f"{late:.0f} s ago"
        text = f"{fleet.schedulers} run, but the last tick was {said}"
        return error(SCHEDULER, text, "read the scheduler's log; start the scheduler again")
    text = f"{fleet.schedulers} alive, last tick {late:.1f} s ago"
    if context.settings.persistent_mode != (keys.SYNC_ID in fleet.schedule):
        mode = "not in" if context.settings.persistent_mode else "in"
        return error(
            SCHEDULER,
            f"{text}, but the active scheduler runs {mode} persistent mode, unlike this shell",
            "give all processes the same persistent_mode",
        )
    return ok(SCHEDULER, text)


def _failed(context: Context, fleet: Fleet) -> Finding:
    found = {queue.name: queue.failed for queue in fleet.queues if queue.failed}
    if not found:
        return ok(FAILED_JOBS, "none")
    text = ", ".join(f"{count} of {queue}" for queue, count in found.items())
    queue = next(iter(found))
    why = _why(context, queue)
    return warn(
        FAILED_JOBS,
        f"{text}; the latest: {why}" if why else text,
        "read the worker's log; RQ forgets failed jobs after an hour",
    )


def _why(context: Context, queue: str) -> str:
    """Return the function and the error of the queue's latest failed job."""
    registry = jobs.queue(queue, context.jobs_client).failed_job_registry
    try:
        job_id = registry.get_job_ids(-1, -1)[0]
        job = Job.fetch(job_id, connection=context.jobs_client)
        result = job.latest_result()
    except Exception:  # noqa: BLE001 - no content of the registry may end the health check
        return ""
    lines = (result.exc_string or "").strip().splitlines() if result else []
    if lines and "AbandonedJobError" in lines[-1]:
        return f"{job.func_name}: its worker ended, or lost Redis, meanwhile; nothing is lost"
    return f"{job.func_name}: {lines[-1]}" if lines else f"{job.func_name} ({job_id})"


def _junk_jobs(fleet: Fleet) -> Iterator[Finding]:
    """Yield the junk jobs that the processes found, and the bad values of this look."""
    yield from (_junk(report) for report in fleet.junk)
    bad = [
        warn(JUNK_JOBS, f"{what} and is left out", "delete it with redis-cli")
        for what in fleet.unreadable
    ]
    yield from bounded(bad, 3, "first delete the values named above")
    if not (fleet.junk or bad):
        yield ok(JUNK_JOBS, "none")


def _junk(report: JunkReport) -> Finding:
    text = (
        f"{report.count} in {report.queue} since {stamp(report.since)}, not run; the latest "
        f"{stamp(report.last)}: {report.example}"
    )
    advice = (
        f"see `redis-cli LRANGE {keys.junk(report.queue)} 0 9`; configure the program that "
        "enqueues these jobs with another queue, or another Redis database"
    )
    return warn(JUNK_JOBS, text, advice)


def _other_applications(fleet: Fleet) -> Finding:
    foreign = fleet.foreign
    if not foreign:
        return ok(OTHER_APPLICATIONS, "no other application uses RQ in this Redis database")
    parts = [
        f"{len(foreign.queues)} queues ({listed(foreign.queues)})" if foreign.queues else "",
        f"{foreign.workers} workers" if foreign.workers else "",
        f"{foreign.scheduled} scheduled jobs" if foreign.scheduled else "",
    ]
    return warn(
        OTHER_APPLICATIONS,
        f"other applications use RQ in this Redis database: {', '.join(filter(None, parts))}",
        "give clusterer a database of its own: another number at the end of redis_url",
    )
