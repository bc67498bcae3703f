"""The Grafana dashboard that we ship, as its tests read it."""

from __future__ import annotations

import json
from typing import Any

from tests.support import docs

MONITORING = docs.DOCS / "monitoring"
BOARD: dict[str, Any] = json.loads((MONITORING / "grafana.json").read_text())
PANELS: list[dict[str, Any]] = [one for one in BOARD["panels"] if one["type"] != "row"]

_GRAFANAS = {"$__rate_interval": "8s", "$__range": "1m", "$cluster": ".*", "$machine": ".*"}
"""What Grafana puts in the place of its variables, for a Prometheus that scrapes every second."""


def query_of(target: dict[str, Any]) -> str:
    """Return a target's query as Grafana sends it."""
    query: str = target["expr"]
    for name, value in _GRAFANAS.items():
        query = query.replace(name, value)
    return query
