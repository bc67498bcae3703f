"""The page Cluster: its nodes, nodes with faults first, its broken paths, links, and the map."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from clusterer.console import query
from clusterer.console.console import Console
from clusterer.console.page import CLUSTER_PATH, Page, Parameters
from clusterer.console.pages.as_json import (
    alarm_as_json,
    cluster_as_json,
    links_as_json,
    node_as_json,
    path_as_json,
    rates,
)
from clusterer.console.pages.overview import MOST_ALARMS
from clusterer.errors import InvalidArgument
from clusterer.services.live import ClusterRows, Row
from clusterer.store import ClusterKey

AT_ONCE = 100
"""Nodes on one page."""
MOST_PATHS = 200
"""Broken paths on the page."""
MOST_LINKS = 200
"""Links of a 3.x cluster on the page."""
SPARKS = 60
"""Samples of a sparkline: ten minutes."""

_LONGEST_FIND = 100


def load(console: Console, parameters: Parameters) -> dict[str, Any]:
    """Return a cluster's sums, alarms, one page of its nodes, its broken paths, links and map."""
    key = ClusterKey(parameters["cluster_id"], parameters["proto"])
    moment = console.feed.now()
    cluster = moment.cluster(key)
    find = query.text(parameters, "find")
    found = _selected(cluster, find)
    pages = max(1, -(-len(found) // AT_ONCE))
    page = min(query.id_of(parameters, "page") or 1, pages)
    shown = found[(page - 1) * AT_ONCE : page * AT_ONCE]
    sparks = _sparks(console, key, shown)
    alarms = [alarm for alarm in moment.alarms() if alarm.key == key]
    broken = cluster.broken_paths()
    links = links_as_json(console.feed.links(key))
    return {
        "title": f"Cluster {key.cluster_id}"
        + ("" if key.protocol == "bin" else f" {key.protocol}"),
        "now": round(moment.now),
        "stalled": moment.snapshot.stalled,
        "cluster": cluster_as_json(cluster, moment),
        "alarms": [alarm_as_json(alarm) for alarm in alarms[:MOST_ALARMS]],
        "alarm_count": len(alarms),
        "find": find,
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
        "opensips_3": console.feed.is_3x(key),
        "links": links[:MOST_LINKS],
        "link_count": len(links),
        "map": [
            {"machine_id": row.node.machine_id, "condition": row.node.condition.value}
            for row in cluster.rows
        ],
    }


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


PAGE = Page(
    "cluster",
    CLUSTER_PATH,
    "Cluster",
    load,
    "cluster.html",
    in_menu=False,
    query=("find", "page"),
)
