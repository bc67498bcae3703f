"""A worker process, from its settings to its end."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import redis

from clusterer.endpoint import awaited, remedy
from clusterer.errors import NewerFormat, OlderFormat, SettingsError, StateUnavailable
from clusterer.jobs import JOB_FUNCTIONS, connect
from clusterer.runtime.descriptors import allow_files
from clusterer.runtime.stop import handle_stop_signals
from clusterer.settings import DATABASE_QUEUE, MAINTENANCE_QUEUE, WORKER_KINDS, Settings
from clusterer.store.format import require_format
from workers import runtime
from workers.stopping import RETRY_S
from workers.worker import Worker

logger = logging.getLogger(__name__)


def run(kind: str, settings: Settings, *, burst: bool = False) -> int:
    """Work until SIGTERM or SIGINT (with ``burst``: until the queue is empty); return 0.

    ``kind`` is one of `settings.WORKER_KINDS`. Redis may be away, also at the start. The process
    logs no line per job: jobs run several times a second. Raises `SettingsError` for another kind.
    """
    queue_name = queue_of(kind, settings)
    for name in ("rq.worker", "rq.job", "rq.queue"):
        logging.getLogger(name).setLevel(logging.WARNING)
    from clusterer.processes import Progress  # noqa: PLC0415 - only processes need it

    allow_files()  # a connection per node
    state = runtime.start(settings)
    handle_stop_signals(lambda *_: state.stop.set())
    with Progress(settings, f"worker-{kind}") as progress:
        state.progressed = progress.note
        worker = _make_worker(queue_name, settings, state)
        if worker is not None:
            logger.info("%s worker %s: takes jobs of %s", kind, worker.name, queue_name)
            with _metrics(kind, settings, state):
                worker.work(burst=burst, logging_level=None)
    return 0


@contextmanager
def _metrics(kind: str, settings: Settings, state: runtime.Runtime) -> Iterator[None]:
    if not settings.metrics_port:
        yield
        return
    from clusterer.services import metrics  # noqa: PLC0415 - keeps workers light

    state.metrics = metrics.JobMetrics(sorted(JOB_FUNCTIONS))
    collectors = [*state.metrics.collectors()]
    if kind == "delivery":
        from clusterer.delivery.meter import Meter  # noqa: PLC0415 - only this kind delivers

        state.meter = Meter()
        collectors.append(metrics.DeliveryCollector(state.meter))
    with metrics.serving(settings, lambda: collectors):
        yield


def queue_of(kind: str, settings: Settings) -> str:
    """Name of the queue that workers of this kind serve."""
    queues = {
        "delivery": settings.delivery_queue,
        "maintenance": MAINTENANCE_QUEUE,
        "database": DATABASE_QUEUE,
    }
    if kind not in queues:
        raise SettingsError(f"kind of worker must be {', '.join(WORKER_KINDS)}, not {kind!r}")
    return queues[kind]


def _make_worker(queue_name: str, settings: Settings, state: runtime.Runtime) -> Worker | None:
    """Make the worker as soon as Redis can be reached; None if a stop request comes before."""
    told = False
    while not state.stop.is_set():
        state.progressed()
        try:
            client = connect(settings)
            require_format(settings, client)
            return Worker(queue_name, connection=client)
        except NewerFormat:
            raise
        except (redis.RedisError, StateUnavailable) as error:
            if not told:
                logger.warning(
                    "worker of %s: waiting for %s", queue_name, _awaited(settings, error)
                )
            told = True
            state.stop.wait(RETRY_S)
    return None


def _awaited(settings: Settings, error: Exception) -> str:
    if isinstance(error, OlderFormat):
        return f"the end of older processes: {error}"
    cause = error.__cause__ if isinstance(error, StateUnavailable) else error
    if isinstance(cause, redis.RedisError):
        return awaited(settings, cause)
    return f"{error}: {remedy(error)}"
