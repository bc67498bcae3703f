"""What `clusterer paths` shows: the paths that are not up, since when, and why."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from clusterer.services.context import Context
from clusterer.services.status import paths
from clusterer.services.status.paths import BrokenPath


@dataclass(frozen=True, slots=True)
class Filter:
    """Which paths are of interest; None: all."""

    cluster_id: int | None = None
    sender: int | None = None
    machine_id: int | None = None

    def __contains__(self, item: BrokenPath) -> bool:
        places = (
            (self.cluster_id, item.node.cluster_id),
            (self.sender, item.sender),
            (self.machine_id, item.node.machine_id),
        )
        return all(wanted in (None, found) for wanted, found in places)


@dataclass(frozen=True, slots=True)
class Row:
    """One path."""

    broken: BrokenPath
    since: float | None
    """When the path was last up, UNIX seconds; None if Redis has that event no longer."""


@dataclass(frozen=True, slots=True)
class BrokenPaths:
    """The paths that are not up, as of one moment."""

    now: float
    """Redis TIME, UNIX seconds."""
    rows: tuple[Row, ...]


def run(context: Context, wanted: Filter) -> BrokenPaths:
    """Read the paths that are not up, by cluster, sender and node. Raises `StateUnavailable`."""
    now = context.nodes.now()
    records, now_ms = paths.read(context)
    if not records:
        return BrokenPaths(now, ())
    views = context.nodes.views().values()
    found = [item for item in paths.broken(views, records, now_ms) if item in wanted]
    times = paths.since(context, found) if found else {}
    rows = (Row(item, times.get((item.sender, item.node.destination))) for item in found)
    return BrokenPaths(now_ms / 1000, tuple(rows))


def as_json(found: BrokenPaths) -> dict[str, Any]:
    """Return the paths as JSON knows them; times are UNIX seconds."""
    return {"now": found.now, "paths": [_as_json(row) for row in found.rows]}


def _as_json(row: Row) -> dict[str, Any]:
    node, path = row.broken.node, row.broken.path
    return {
        "cluster_id": node.cluster_id,
        "protocol": node.protocol,
        "sender": row.broken.sender,
        "machine_id": node.machine_id,
        "url": node.url,
        "condition": row.broken.condition.value,
        "verdict": node.condition.value,
        "no_tries": path.no_tries,
        "failed_attempts": node.failed_attempts,
        "since": row.since,
        "last_attempt": path.last_ms / 1000,
        "reason": path.reason,
    }
