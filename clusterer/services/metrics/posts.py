"""Metrics of the packets that an instance posts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from clusterer.store.append_queue import PostCounts


class Posts(Protocol):
    """The part of `clusterer.sending.Sender` that the metrics show."""

    @property
    def counts(self) -> PostCounts: ...

    @property
    def waiting_bytes(self) -> int: ...


class PostCollector(Collector):
    """Reads the counts of posted packets, and the bytes that wait."""

    def __init__(self, machine_id: int, posts: Posts) -> None:
        self._sender = str(machine_id)
        self._posts = posts

    def collect(self) -> Iterator[Metric]:
        """Return all metrics of this moment."""
        counts = self._posts.counts
        posted = CounterMetricFamily(
            "clusterer_posted_packets", "Packets that post took.", labels=("sender",)
        )
        posted.add_metric((self._sender,), counts.posted)
        yield posted
        unsent = CounterMetricFamily(
            "clusterer_unsent_posts",
            "Posted packets that were not sent, and those that post did not take.",
            labels=("sender", "reason"),
        )
        for reason in ("rejected", "dropped", "refused"):
            unsent.add_metric((self._sender, reason), getattr(counts, reason))
        yield unsent
        waiting = GaugeMetricFamily(
            "clusterer_post_buffer_bytes",
            "Bytes of posted packets that wait for Redis.",
            labels=("sender",),
        )
        waiting.add_metric((self._sender,), self._posts.waiting_bytes)
        yield waiting
