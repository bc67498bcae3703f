"""The prober of the host, beside the jobs of a delivery worker."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from clusterer.settings import DATABASE_QUEUE, MAINTENANCE_QUEUE, Settings


@contextmanager
def probing(queue_name: str, settings: Settings) -> Iterator[None]:
    """Run a prober if ``queue_name`` is a delivery queue."""
    if queue_name in (MAINTENANCE_QUEUE, DATABASE_QUEUE):
        yield
        return
    from clusterer.prober import Prober  # noqa: PLC0415 - only delivery workers connect to nodes

    prober = Prober(settings)
    prober.start()
    try:
        yield
    finally:
        prober.close()
