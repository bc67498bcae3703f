"""Actions: an operator changes a node or the table.

Each action has one function, `Action.act`, which says what it will do (``dry_run``) or does it. The
framework shows the plan first, and carries it out only if it is still the same.
"""

from __future__ import annotations

from clusterer.console.actions import clusters, nodes
from clusterer.console.actions.action import Action

ACTIONS: tuple[Action, ...] = (
    nodes.STATUS,
    nodes.EDIT,
    nodes.REMOVE,
    nodes.ADD,
    clusters.RELOAD,
    clusters.FORGET,
)
