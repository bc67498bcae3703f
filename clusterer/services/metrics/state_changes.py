"""Counts the changes of nodes' states in the audit streams."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from prometheus_client.core import CounterMetricFamily, Metric

from clusterer.membership import Condition, Node
from clusterer.runtime import forks
from clusterer.services.context import Context
from clusterer.services.metrics.series import NODE, node_labels
from clusterer.store.audit import AuditEvent, AuditStore, EventReader

_DOWN, _UP, _PROBING, _DISABLED = Condition

USUAL = (
    (_UP, _PROBING),
    (_UP, _DISABLED),
    (_UP, _DOWN),
    (_PROBING, _UP),
    (_PROBING, _DISABLED),
    (_PROBING, _DOWN),
    (_DISABLED, _UP),
    (_DISABLED, _DOWN),
    (_DOWN, _UP),
)
"""Changes with a time series from the start: an increase needs a zero to start from."""


class Changes:
    """Counts the audit streams' events since the first `read` of this process."""

    def __init__(self, context: Context) -> None:
        self._store = AuditStore(context.settings, context.redis)
        self._reader: EventReader[AuditEvent] | None = None
        self._counts: Counter[tuple[str, ...]] = Counter()
        self._shown: set[tuple[str, ...]] = set()
        """Places of nodes whose time series have begun at zero."""
        self._lock = forks.lock()

    def read(self, nodes: Iterable[Node]) -> Metric:
        """Return the counts up to now: of ``nodes``, and of all others that have changed.

        The series of a node begin with zeros: a node that is not among ``nodes`` has them in the
        first `read` after a change, and its counts from the next one on. Raises `StateUnavailable`.
        """
        with self._lock:
            self._count()
            metric = CounterMetricFamily(
                "clusterer_node_transitions",
                "Changes of nodes' states.",
                labels=(*NODE, "before", "after"),
            )
            known = set(map(node_labels, nodes))
            changed = {labels[:3] for labels in self._counts}
            begun = known | self._shown
            self._shown = known | changed
            zeros = {
                (*place, before.value, after.value): 0
                for place in self._shown
                for before, after in USUAL
            }
            counts = {labels: n for labels, n in self._counts.items() if labels[:3] in begun}
            for labels, count in sorted((zeros | counts).items()):
                metric.add_metric(labels, count)
        return metric

    def _count(self) -> None:
        clusters = self._store.clusters()
        if self._reader is None:
            reader = EventReader(self._store)
            reader.past(clusters)  # the events so far do not count
            self._reader = reader
        while events := self._reader.new(clusters):
            for event in events:
                if event.before != event.after:
                    self._counts[(*node_labels(event), event.before, event.after)] += 1
