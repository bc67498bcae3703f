"""Job functions, the process's runtime, and what a worker refuses."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis
from fakeredis import FakeRedis

import workers
from clusterer.errors import InvalidArgument, SettingsError, StateUnavailable
from clusterer.jobs import Job, Queue
from clusterer.settings import WORKER_KINDS, Settings
from workers import runtime
from workers.process import queue_of


class Recorder:
    """Stands in for engine and context, and records calls."""

    def __init__(self, *args: Any) -> None:
        self.args = args
        self.runs: list[dict[str, Any]] = []
        self.closed = 0
        made.append(self)

    def run(self, **kwargs: Any) -> None:
        self.runs.append(kwargs)

    def close(self) -> None:
        self.closed += 1
        if error := failures.get("close"):
            raise error


made: list[Recorder] = []
calls: list[tuple[str, Any]] = []
failures: dict[str, Exception] = {}
stopped_seen: list[bool] = []
"""Each answer of the function by which a service asks whether its worker has to end."""


def _service(name: str) -> Callable[..., None]:
    def run(context: Any, stopped: Callable[[], bool] | None = None) -> None:
        calls.append((name, context))
        if stopped is not None:
            stopped_seen.append(stopped())
        if name in failures:
            raise failures[name]

    return run


@pytest.fixture(autouse=True)
def process(monkeypatch: pytest.MonkeyPatch) -> Iterator[runtime.Runtime]:
    """A fresh runtime over stubs of all services."""
    made.clear()
    calls.clear()
    stopped_seen.clear()
    failures.clear()
    services: Any = types.ModuleType("clusterer.services")
    services.Context = Recorder
    periodic: Any = types.ModuleType("clusterer.services.periodic")
    for name in ("probe", "timeouts", "sweep", "history", "sync"):
        setattr(periodic, name, types.SimpleNamespace(run=_service(name)))
    delivery: Any = types.ModuleType("clusterer.delivery")
    delivery.Engine = Recorder
    monkeypatch.setitem(sys.modules, "clusterer.services", services)
    monkeypatch.setitem(sys.modules, "clusterer.services.periodic", periodic)
    monkeypatch.setitem(sys.modules, "clusterer.delivery", delivery)
    yield runtime.start(Settings())
    runtime._Slot.runtime = None


@pytest.mark.parametrize(
    ("function", "service"),
    [
        (workers.probe, "probe"),
        (workers.check_timeouts, "timeouts"),
        (workers.sweep, "sweep"),
        (workers.record_history, "history"),
        (workers.sync, "sync"),
    ],
)
def test_job_calls_its_service_with_the_kept_context(
    function: Callable[[], None], service: str, process: runtime.Runtime
) -> None:
    function()
    function()
    assert calls == [(service, process.context)] * 2
    assert len(made) == 1
    assert made[0].args == (process.settings,)


def test_sync_job_knows_whether_its_worker_has_to_end(process: runtime.Runtime) -> None:
    workers.sync()
    process.stop.set()
    workers.sync()
    assert stopped_seen == [False, True]


@pytest.mark.parametrize(
    "error", [StateUnavailable("gone"), redis.ConnectionError("gone"), redis.TimeoutError("gone")]
)
def test_job_redis_down_is_one_line_and_no_failure(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    failures["probe"] = error
    workers.probe()
    assert [record.getMessage() for record in caplog.records] == [
        "job probe: postponed, Redis is away: gone"
    ]


def test_job_other_error_fails_it() -> None:
    failures["sweep"] = RuntimeError("a bug")
    with pytest.raises(RuntimeError):
        workers.sweep()


def test_job_engine_serves_all_jobs(process: runtime.Runtime) -> None:
    workers.deliver("q")
    workers.deliver("q")
    (engine,) = made
    assert engine.args == (process.settings, "q", process.meter)
    assert engine.runs == [{"stop": process.stop, "heartbeat": process.heartbeat}] * 2


def test_job_for_other_queue_than_engine_is_refused() -> None:
    workers.deliver("q")
    with pytest.raises(InvalidArgument, match="delivers for queue 'q', not 'other'"):
        workers.deliver("other")


def test_close_closes_engine_and_context_once(process: runtime.Runtime) -> None:
    workers.deliver("q")
    workers.probe()
    process.close()
    process.close()
    assert [thing.closed for thing in made] == [1, 1]


def test_failing_close_does_not_stop_the_other(
    process: runtime.Runtime, caplog: pytest.LogCaptureFixture
) -> None:
    failures["close"] = OSError("no")
    workers.deliver("q")
    workers.probe()
    process.close()
    assert [thing.closed for thing in made] == [1, 1]
    assert caplog.text.count("closing Recorder failed") == 2


def test_workers_runtime_default_is_from_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    runtime._Slot.runtime = None
    monkeypatch.setenv("CLUSTERER_DELIVERY_QUEUE", "host-7")
    assert runtime.current().settings.delivery_queue == "host-7"
    assert runtime.current() is runtime.current()
    runtime.current().heartbeat()


def test_worker_serves_one_queue() -> None:
    with pytest.raises(ValueError, match="one queue per worker, not 2: a, b"):
        workers.Worker(["a", "b"], connection=FakeRedis(version=(7,)))


def test_worker_uses_our_classes_whatever_it_is_given() -> None:
    from rq import Queue as PlainQueue  # noqa: PLC0415
    from rq.job import Job as PlainJob  # noqa: PLC0415

    client = FakeRedis(version=(7,))
    plain = PlainQueue("a", connection=client)
    worker = workers.Worker(
        [plain], connection=client, job_class=PlainJob, queue_class=PlainQueue, serializer=None
    )
    assert [type(queue) for queue in worker.queues] == [Queue]
    assert (worker.job_class, worker.queues[0].job_class) == (Job, Job)


def test_worker_does_not_start_rqs_own_scheduler() -> None:
    worker = workers.Worker("a", connection=FakeRedis(version=(7,)))
    with pytest.raises(ValueError, match="python -m scheduler"):
        worker.work(with_scheduler=True)


def test_worker_that_leaves_logs_no_failed_command(caplog: pytest.LogCaptureFixture) -> None:
    worker = workers.Worker("a", connection=FakeRedis(version=(7,)))
    stopped: list[bool] = []
    listener: Any = types.SimpleNamespace(stop=lambda: stopped.append(True))
    worker._left.set()
    worker.commands_failed(KeyError(0), listener)
    assert stopped
    assert not caplog.messages


def test_worker_kind_has_its_queue() -> None:
    settings = Settings(delivery_queue="host-7")
    assert [queue_of(kind, settings) for kind in WORKER_KINDS] == [
        "host-7",
        "clusterer-maintenance",
        "clusterer-database",
    ]
    with pytest.raises(SettingsError, match="not 'teapot'"):
        queue_of("teapot", settings)
