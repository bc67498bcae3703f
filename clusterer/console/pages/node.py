"""The page Node: one node's row, past states, paths, links, traffic, modules and events."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from clusterer.console.console import Console
from clusterer.console.feed import Moment
from clusterer.console.page import NODE_PATH, NotFound, Page, Parameters
from clusterer.console.pages.as_json import (
    links_as_json,
    node_as_json,
    oldest_since,
    path_as_json,
    rates,
)
from clusterer.membership import Node
from clusterer.services.admin import events
from clusterer.services.admin.event_feed import EventFilter
from clusterer.services.live import ClusterRows, Row
from clusterer.services.live.last_seen import LastSeen
from clusterer.services.status.traffic import Traffic
from clusterer.store import ClusterKey
from clusterer.store.audit import PathEvent
from clusterer.store.history import Recorded

MOST_EVENTS = 20
"""Events on the page."""
MOST_SENDERS = 100
"""Senders to the node, nodes to which it sends, and links, each, on the page."""


def load(console: Console, parameters: Parameters) -> dict[str, Any]:
    """Return everything about one node."""
    key, machine_id = _place(parameters)
    moment = console.feed.now()
    cluster = moment.cluster(key)
    row = _row(cluster, machine_id)
    pairs = console.feed.pairs(moment, row.node)
    past = _events(console, key, machine_id)
    shown = past[:MOST_EVENTS]
    links = links_as_json(
        link for link in console.feed.links(key) if machine_id in (link.instance, link.machine_id)
    )
    return {
        "title": f"Node {machine_id} of cluster {key.cluster_id}",
        "node": {
            **node_as_json(row, moment),
            "address": f"{row.node.host}:{row.node.port}",
            "last_attempt": row.node.last_attempt or None,
        },
        "now": round(moment.now),
        "stalled": moment.snapshot.stalled,
        "states": _states(row.node, past, moment.now),
        "senders": _flows(pairs.received, cluster, moment, to=True),
        "sender_count": len(pairs.received),
        "destinations": _flows(pairs.sent, cluster, moment, to=False),
        "destination_count": len(pairs.sent),
        "paths": [
            path_as_json(path)
            for path in cluster.broken_paths()
            if machine_id in (path.sender, path.node.machine_id)
        ][:MOST_SENDERS],
        "opensips_3": console.feed.is_3x(key),
        "links": links[:MOST_SENDERS],
        "link_count": len(links),
        "modules": [_last_seen(item, moment.now) for item in pairs.last_seen[:MOST_SENDERS]],
        "module_count": len(pairs.last_seen),
        "events": [events.as_json(event) for event in shown],
        "history_interval": console.settings.history_interval,
    }


def _place(parameters: Parameters) -> tuple[ClusterKey, int]:
    key = ClusterKey(parameters["cluster_id"], parameters["proto"])
    return key, parameters["machine_id"]


def _row(cluster: ClusterRows, machine_id: int) -> Row:
    for row in cluster.rows:
        if row.node.machine_id == machine_id:
            return row
    raise NotFound(f"cluster {cluster.key} has no node {machine_id}")


def _flows(
    flows: Sequence[Traffic], cluster: ClusterRows, moment: Moment, *, to: bool
) -> list[dict[str, Any]]:
    """Return the traffic for JSON, pairs with faults first; ``to``: of senders to the node.

    ``path`` is the state in which the sender sees the node: its own record, else the verdict.
    """
    gates = {
        (path.sender, path.node.machine_id): path.condition.value for path in cluster.broken_paths()
    }
    verdicts = {row.node.machine_id: row.node.condition.value for row in cluster.rows}
    found = [
        {
            "machine_id": item.sender if to else item.machine_id,
            "path": gates.get((item.sender, item.machine_id), verdicts[item.machine_id]),
            "sent": item.sent,
            "failed": item.failed,
            "skipped": item.skipped,
            "lost": item.lost,
            "backlog": item.backlog,
            "oldest_since": oldest_since(item.oldest_s, moment.now),
        }
        for item in flows
    ]
    return sorted(found, key=lambda each: (each["path"] == "up", each["machine_id"]))[:MOST_SENDERS]


def _last_seen(item: LastSeen, now: float) -> dict[str, Any]:
    """Return when an instance last saw the node, for JSON."""
    return {
        "receiver": item.receiver,
        "module": item.module,
        "last_seen_at": round(now - item.age_s),
        "muted_until": None if item.muted_s is None else round(now + item.muted_s),
        "timeout_s": item.timeout_s,
    }


def _events(console: Console, key: ClusterKey, machine_id: int) -> Sequence[Any]:
    """Return the events of the node and of the paths from and to it, newest first."""
    place = events.Filter(cluster_id=key.cluster_id, machine_id=machine_id)
    found = console.event_feed.view(EventFilter(place)).events
    return [event for event in found if event.protocol == key.protocol]


def _states(node: Node, past: Sequence[Any], now: float) -> list[dict[str, Any]]:
    """Return the last states of the node, oldest first: condition, begin, end, reason.

    The first state has no beginning if its event is not among those that the console keeps.
    """
    changes = [e for e in past if not isinstance(e, PathEvent) and e.before != e.after][
        :MOST_EVENTS
    ]
    found: list[dict[str, Any]] = []
    until: float | None = None
    for event in changes:
        found.append(_state(event.after, event.at, until, event.reason, event.by))
        until = event.at
    if changes and changes[-1].before != "absent":
        found.append(_state(changes[-1].before, None, until, "", ""))
    if not changes:
        found.append(_state(node.condition.value, None, None, "", ""))
    return found[::-1]


def _state(
    condition: str, since: float | None, until: float | None, reason: str, by: str
) -> dict[str, Any]:
    return {"condition": condition, "since": since, "until": until, "reason": reason, "by": by}


def load_history(console: Console, parameters: Parameters) -> dict[str, Any]:
    """Return the samples of the last hour: packets per second, and the backlog."""
    key, machine_id = _place(parameters)
    _row(console.feed.now().cluster(key), machine_id)
    found: list[Recorded] = []
    if console.settings.history_interval:
        found = console.feed.histories(key, [machine_id])[machine_id]
    names = ("sent_to", "sent_by", "skipped", "lost")
    columns = [rates(found, name) for name in names]
    return {
        "title": f"Last hour of node {machine_id} of cluster {key.cluster_id}",
        "cluster_id": key.cluster_id,
        "protocol": key.protocol,
        "machine_id": machine_id,
        "history_interval": console.settings.history_interval,
        "samples": [
            {
                "at": each.at,
                **{
                    f"{name}_per_s": column[at] for name, column in zip(names, columns, strict=True)
                },
                "backlog": each.sample.backlog,
            }
            for at, each in enumerate(found[1:])
        ],
    }


PAGE = Page("node", NODE_PATH, "Node", load, "node.html", in_menu=False)
HISTORY = Page(
    "history",
    f"{NODE_PATH}/history",
    "Last hour",
    load_history,
    "history.html",
    live=False,
    in_menu=False,
)
