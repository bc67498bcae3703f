"""The page Events: the changes of nodes and of paths."""

from __future__ import annotations

from typing import Any

from clusterer.console import query
from clusterer.console.console import Console
from clusterer.console.page import Page, Parameters
from clusterer.services.admin.event_feed import EventFilter
from clusterer.services.admin.events import Filter, as_json, parse_since
from clusterer.store.audit import PathEvent

SHOWN = 100
"""Events on the page, and in an answer of the API."""

KINDS = ("nodes", "paths")


def load(console: Console, parameters: Parameters) -> dict[str, Any]:
    """Return the newest events that a filter selects, newest first."""
    kind = query.choice(parameters, "kind", KINDS)
    after = query.text(parameters, "after")
    place = Filter(
        parse_since(after)(console.context.nodes.now()) if after else 0.0,
        query.id_of(parameters, "cluster") or 0,
        query.id_of(parameters, "node") or 0,
    )
    wanted = EventFilter(place, kind == "paths" if kind else None, query.text(parameters, "find"))
    found = console.event_feed.view(wanted, SHOWN)
    return {
        "filter": {name: query.text(parameters, name) for name in PAGE.query},
        "events": [
            {"kind": "path" if isinstance(each, PathEvent) else "node"} | as_json(each)
            for each in found.events
        ],
        "selected": found.selected,
        "kept": found.kept,
        "more": found.more,
    }


PAGE = Page(
    "events",
    "/events",
    "Events",
    load,
    "events.html",
    query=("kind", "cluster", "node", "after", "find"),
)
