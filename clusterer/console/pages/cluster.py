"""The page Cluster: its nodes, nodes with faults first, its broken paths, and the map."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

from clusterer.console.console import Console
from clusterer.console.feed import Moment
from clusterer.console.page import CLUSTER_PATH, Page, Parameters
from clusterer.console.pages.overview import (
    MOST_ALARMS,
    alarm_as_json,
    cluster_as_json,
    oldest_since,
    place_as_json,
    rounded,
)
from clusterer.errors import InvalidArgument
from clusterer.services.live import ClusterRows, Row
from clusterer.services.status.failures import Failure, place_of
from clusterer.services.status.paths import BrokenPath
from clusterer.store import ClusterKey
from clusterer.store.history import Recorded, Sample

AT_ONCE = 100
"""Nodes on one page."""
MOST_PATHS = 200
"""Broken paths on the page."""
SPARKS = 60
"""Samples of a sparkline: ten minutes."""

_LONGEST_FIND = 100


def load(console: Console, parameters: Parameters) -> dict[str, Any]:
    """Return a cluster's sums, alarms, one page of its nodes, its broken paths and its map."""
    key = ClusterKey(parameters["cluster_id"], parameters["proto"])
    moment = console.feed.now()
    cluster = moment.cluster(key)
    found = _selected(cluster, parameters.get("find", "").strip())
    pages = max(1, -(-len(found) // AT_ONCE))
    page = min(_number(parameters.get("page", "1")), pages)
    shown = found[(page - 1) * AT_ONCE : page * AT_ONCE]
    sparks = _sparks(console, key, shown)
    alarms = [alarm for alarm in moment.alarms() if alarm.key == key]
    broken = [path for row in cluster.rows for path in row.broken]
    return {
        "title": f"Cluster {key.cluster_id}"
        + ("" if key.protocol == "bin" else f" {key.protocol}"),
        "now": round(moment.now),
        "stalled": moment.snapshot.stalled,
        "cluster": cluster_as_json(cluster, moment.offered_per_s.get(key), moment.now),
        "alarms": [alarm_as_json(alarm) for alarm in alarms[:MOST_ALARMS]],
        "alarm_count": len(alarms),
        "find": parameters.get("find", "").strip(),
        "selected": len(found),
        "page": page,
        "pages": pages,
        "history": bool(console.settings.history_interval),
        "nodes": [
            {**node_as_json(row, moment), "sent_to_per_s": sparks.get(row.node.machine_id, [])}
            for row in shown
        ],
        "paths": [path_as_json(path) for path in broken[:MOST_PATHS]],
        "path_count": len(broken),
        "map": [
            {"machine_id": row.node.machine_id, "condition": row.node.condition.value}
            for row in cluster.rows
        ],
    }


def _number(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) < 10 and int(text)):
        raise InvalidArgument(f"page must be a number from 1, not {text!r}")
    return int(text)


def _selected(cluster: ClusterRows, find: str) -> list[Row]:
    """Return the nodes that a search finds, nodes with faults first."""
    if len(find) > _LONGEST_FIND:
        raise InvalidArgument(f"find takes at most {_LONGEST_FIND} characters")
    found = [row for row in cluster.rows if not find or _matches(row, find.casefold())]
    return sorted(found, key=lambda row: (not row.troubled, row.node.machine_id))


def _matches(row: Row, wanted: str) -> bool:
    """Whether a node has the machine_id or state ``wanted``, or contains it in a text."""
    node = row.node
    if wanted.isdecimal():
        return wanted == str(node.machine_id)
    texts = node.url.casefold(), node.description.casefold()
    return wanted == node.condition.value or any(wanted in text for text in texts)


def _sparks(console: Console, key: ClusterKey, shown: Sequence[Row]) -> dict[int, list[Any]]:
    if not console.settings.history_interval:
        return {}
    histories = console.feed.histories(key, [row.node.machine_id for row in shown])
    return {
        machine_id: rates(found[-SPARKS - 1 :], "sent_to")
        for machine_id, found in histories.items()
    }


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
    """Return a line of a node for JSON; times are UNIX seconds."""
    node = row.node
    failure = moment.failures.get(place_of(node), Failure())
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
        "back_at": node.enabled_at if row.back_in_s is not None else None,
        "reached_by": row.reach.reached if row.reach else None,
        "live_senders": row.reach.senders if row.reach else 0,
        "backlog": row.backlog,
        "oldest_since": oldest_since(row.oldest_s, moment.now),
        "in_per_s": rounded(row.in_per_s),
        "out_per_s": rounded(row.out_per_s),
        "muted": sorted(m for m, item in row.by_module().items() if item.muted_s is not None),
    }


def path_as_json(path: BrokenPath) -> dict[str, Any]:
    """Return a broken path for JSON; ``last_attempt`` is UNIX seconds."""
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


PAGE = Page(
    "cluster",
    CLUSTER_PATH,
    "Cluster",
    load,
    "cluster.html",
    in_menu=False,
    query=("find", "page"),
)
