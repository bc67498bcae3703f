"""The state that a worker process keeps from job to job: settings, stop flag, engine, context."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from clusterer.errors import InvalidArgument, StateUnavailable
from clusterer.runtime.stop import StopFlag
from clusterer.settings import DATABASE_QUEUE, MAINTENANCE_QUEUE, Settings
from clusterer.settings.sources import load_settings

if TYPE_CHECKING:
    from clusterer.delivery import Engine
    from clusterer.delivery.meter import Meter
    from clusterer.services import Context
    from clusterer.services.metrics import JobMetrics

logger = logging.getLogger(__name__)


class Runtime:
    """Lives as long as the process; the first job that needs engine or context makes them."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.stop = StopFlag()
        self.heartbeat: Callable[[], None] = _ignore
        self.progressed: Callable[[], None] = _ignore
        """The worker's loop calls this function in each turn, a long job about every 10 s."""
        self.metrics: JobMetrics | None = None
        self.meter: Meter | None = None
        self.goes_on = False
        """Whether the engine has kept leases and connections for a job that must follow at once."""
        self._context: Context | None = None
        self._engine: Engine | None = None
        self._engine_queue = ""

    @property
    def context(self) -> Context:
        """The context of the services; keeps their Redis client."""
        if self._context is None:
            from clusterer.services import Context  # noqa: PLC0415 - keeps workers light

            self._context = Context(self.settings)
        return self._context

    def deliver(self, queue_name: str) -> None:
        """Run the engine for the length of one job; its sockets live on between jobs.

        Sets `goes_on` if another delivery job must follow at once.
        """
        engine = self._engine or self._start_engine(queue_name)
        if queue_name != self._engine_queue:
            raise InvalidArgument(
                f"this process delivers for queue {self._engine_queue!r}, not {queue_name!r}"
            )
        self.goes_on = False
        self.goes_on = bool(engine.run(stop=self.stop, heartbeat=self.heartbeat))

    @contextmanager
    def probing(self, queue_name: str) -> Iterator[None]:
        """Run the prober of the host, beside the jobs of a delivery queue."""
        if queue_name in (MAINTENANCE_QUEUE, DATABASE_QUEUE):
            yield
            return
        from clusterer.prober import Prober  # noqa: PLC0415 - only delivery workers connect to nodes

        prober = Prober(self.settings)
        prober.start()
        try:
            yield
        finally:
            prober.close()

    def pause(self) -> None:
        """Release the leases that the last delivery job kept: no other job follows at once."""
        if self.goes_on and self._engine is not None:
            self.goes_on = False
            try:
                self._engine.hand_over()
            except StateUnavailable as error:
                logger.warning("worker: logs not released: %s; their leases expire", error)

    def _start_engine(self, queue_name: str) -> Engine:
        from clusterer.delivery import Engine  # noqa: PLC0415 - keeps workers light

        self._engine = Engine(self.settings, queue_name, self.meter)
        self._engine_queue = queue_name
        return self._engine

    def job_ended(self, function: str, duration_s: float, *, succeeded: bool) -> None:
        """Note a job for the metrics, if there are any."""
        if self.metrics is not None:
            self.metrics.observe(function, duration_s, succeeded=succeeded)

    def junk_found(self, count: int) -> None:
        """Note junk jobs for the metrics, if there are any."""
        if self.metrics is not None:
            self.metrics.refused(count)

    def close(self) -> None:
        """Close the engine's sockets and the context's connections."""
        held: tuple[Engine | Context | None, ...] = (self._engine, self._context)
        self._engine = self._context = None
        for thing in held:
            try:
                if thing is not None:
                    thing.close()
            except Exception:
                logger.exception("worker: closing %s failed", type(thing).__name__)


class _Slot:
    runtime: Runtime | None = None


def start(settings: Settings) -> Runtime:
    """Make the process's runtime from ``settings``."""
    _Slot.runtime = Runtime(settings)
    return _Slot.runtime


def current() -> Runtime:
    """The process's runtime; made from the environment's settings where none was started."""
    return _Slot.runtime or start(load_settings())


def _ignore() -> None:
    """Heartbeat and progress of a job that no worker process runs."""
