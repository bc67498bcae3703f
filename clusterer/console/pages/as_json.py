"""Alarms, clusters, nodes, paths and links as JSON, for several pages; times are UNIX seconds."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

from clusterer.console.feed import Moment
from clusterer.membership import Condition
from clusterer.services.live import Alarm, ClusterRows, Row
from clusterer.services.status import links
from clusterer.services.status.failures import Failure
from clusterer.services.status.links import SeenLink
from clusterer.services.status.paths import BrokenPath
from clusterer.services.status.totals import added, oldest_s
from clusterer.store import ClusterKey
from clusterer.store.history import Recorded, Sample

OLD_S = 1.0
"""Least age of a backlog that is shown."""


def alarm_as_json(alarm: Alarm) -> dict[str, Any]:
    """Return an alarm."""
    key = alarm.key
    place = place_as_json(key) if key else {"cluster_id": None, "protocol": None}
    found = asdict(alarm) | place | {"severity": alarm.severity.word}
    del found["key"]
    return found


def cluster_as_json(cluster: ClusterRows, moment: Moment) -> dict[str, Any]:
    """Return the sums of a cluster."""
    return {
        **place_as_json(cluster.key),
        "nodes": len(cluster.rows),
        **{condition.value: cluster.count(condition) for condition in Condition},
        "partly_reached": sum(row.partly_reached for row in cluster.rows),
        "out_per_s": rounded(moment.offered_per_s.get(cluster.key)),
        "in_per_s": rounded(_sum(row.in_per_s for row in cluster.rows)),
        "backlog": added(row.backlog for row in cluster.rows),
        "oldest_since": oldest_since(oldest_s(cluster.rows), moment.now),
    }


def place_as_json(key: ClusterKey) -> dict[str, Any]:
    """Return what names a cluster."""
    return {"cluster_id": key.cluster_id, "protocol": key.protocol}


def oldest_since(age_s: float | None, now: float) -> int | None:
    """Return when the oldest packet was sent, UNIX seconds; None without one of a second or more.

    A younger packet is on its way, and does not wait.
    """
    return None if age_s is None or age_s < OLD_S else round(now - age_s)


def rounded(value: float | None) -> float | None:
    """Return a rate with one decimal."""
    return None if value is None else round(value, 1)


def _sum(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def rates(found: Sequence[Recorded], name: str) -> list[float | None]:
    """Return packets per second between each two samples; None where a count went back.

    A sum goes back when a sender is forgotten, or a node is added again.
    """
    at = Sample._fields.index(name)
    changes = []
    for before, after in itertools.pairwise(found):
        elapsed_s, count = after.at - before.at, after.sample[at] - before.sample[at]
        known = elapsed_s > 0 and count >= 0
        changes.append(round(count / elapsed_s, 1) if known else None)
    return changes


def node_as_json(row: Row, moment: Moment) -> dict[str, Any]:
    """Return the line of a node."""
    node = row.node
    failure = moment.failures.get(node.key, Failure())
    return {
        **place_as_json(node.cluster),
        "machine_id": node.machine_id,
        "url": node.url,
        "description": node.description,
        "condition": node.condition.value,
        "troubled": row.troubled,
        "since": failure.since,
        "reason": failure.reason,
        "by": failure.by,
        "no_tries": node.no_tries,
        "failed_attempts": node.failed_attempts,
        "duration": node.duration,
        "back_at": node.enabled_at if row.enabled_in_s is not None else None,
        "reached_by": row.reach.reached if row.reach else None,
        "live_senders": row.reach.senders if row.reach else 0,
        "backlog": row.backlog,
        "oldest_since": oldest_since(row.oldest_s, moment.now),
        "in_per_s": rounded(row.in_per_s),
        "out_per_s": rounded(row.out_per_s),
        "muted": sorted(m for m, item in row.by_module().items() if item.muted_s is not None),
    }


def path_as_json(path: BrokenPath) -> dict[str, Any]:
    """Return a broken path."""
    return {
        "sender": path.sender,
        "machine_id": path.node.machine_id,
        "condition": path.condition.value,
        "verdict": path.node.condition.value,
        "no_tries": path.path.no_tries,
        "failed_attempts": path.node.failed_attempts,
        "last_attempt": path.path.last_ms / 1000,
        "reason": path.path.reason,
    }


def links_as_json(found: Iterable[SeenLink]) -> list[dict[str, Any]]:
    """Return links, those that are not up first."""
    shown = links.as_json(sorted(found, key=lambda each: each.record.state == "up"))
    return [
        link | {"capabilities": {_utf8(name): ok for name, ok in link["capabilities"].items()}}
        for link in shown
    ]


def _utf8(name: str) -> str:
    """Return a name with a ? for each byte that is not UTF-8: a node may announce any bytes."""
    return name.encode("utf-8", "replace").decode()
