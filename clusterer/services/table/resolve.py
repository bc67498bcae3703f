"""Resolves the names in URLs again, and moves nodes whose name has another address now."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Iterator, Mapping
from time import monotonic

from clusterer.errors import StateUnavailable
from clusterer.membership import Node
from clusterer.membership.reload_plan import NodeChange, plan_addresses
from clusterer.membership.views import all_nodes
from clusterer.provisioning.address import name_in
from clusterer.provisioning.names import Names
from clusterer.runtime.logs import LimitedLog, about
from clusterer.runtime.rounds import Rounds
from clusterer.services.context import Context
from clusterer.store import Cause, ClusterKey, ClusterView
from clusterer.store.format import require_format
from clusterer.store.reloads import ReloadStore

log = logging.getLogger(__name__)

BY = "name resolution"
"""Author of the changes in the audit."""

_ATTEMPTS = 20
"""Rounds for clusters that change meanwhile."""

_THREAD = "clusterer-resolve"
_SAY_EVERY_S = 3600.0
_limited = LimitedLog(log, _SAY_EVERY_S)
_rounds = Rounds("resolve")


def run(context: Context, names: Names | None = None) -> list[NodeChange]:
    """Move nodes whose name resolves to another address; return the changes.

    `run` reads the nodes in Redis, not the table. All names together take `names.TIMEOUT_S`
    seconds at most. A name without a usable address changes nothing. Raises `StateUnavailable`.
    """
    require_format(context.settings, context.redis)
    store, known = ReloadStore(context.settings, context.redis), names or Names()
    done: list[NodeChange] = []
    for _ in range(_ATTEMPTS):
        context.directory.refresh()  # reads clusters that changed since the last look
        views = context.directory.snapshot
        named = list(_named(views.values()))
        prefer(known, views.values())
        known.resolve(name for _, name in named)
        plans = [plan_addresses(views[key], hosts) for key, hosts in _moved(named, known).items()]
        conflicts = store.commit(plans, context.nodes.now(), Cause(BY)) if plans else set()
        done += [change for plan in plans if plan.key not in conflicts for change in plan.changed]
        if not conflicts:
            _log_results(named, known, done)
            return done
    raise StateUnavailable(f"the clusters changed {_ATTEMPTS} times while names were resolved")


def _moved(named: Iterable[tuple[Node, str]], known: Names) -> dict[ClusterKey, dict[int, str]]:
    """Return for each cluster the machine_ids whose name has another address, with this address."""
    moved: dict[ClusterKey, dict[int, str]] = {}
    for node, name in named:
        host = known.addresses.get(name, node.host)
        if host != node.host:
            moved.setdefault(node.cluster, {})[node.machine_id] = host
    return moved


def kept_names(context: Context, names: Names | None = None) -> Names:
    """Return ``names``, or new ones, that prefer the addresses which nodes in Redis have.

    Raises `StateUnavailable`.
    """
    store = ReloadStore(context.settings, context.redis)
    found = store.read(context.nodes.clusters())
    return prefer(names or Names(), (snapshot.view for snapshot in found.values()))


def prefer(names: Names, views: Iterable[ClusterView]) -> Names:
    """Have ``names`` prefer the addresses that the nodes in ``views`` have; return them."""
    present: dict[str, set[str]] = {}
    for node, name in _named(views):
        present.setdefault(name, set()).add(node.host)
    names.present = present
    return names


def _named(views: Iterable[ClusterView]) -> Iterator[tuple[Node, str]]:
    """Yield the nodes whose URL has a name, each with the name."""
    for node in all_nodes(views):
        if name := name_in(node.url):
            yield node, name


def _log_results(named: list[tuple[Node, str]], known: Names, changes: list[NodeChange]) -> None:
    for change in changes:
        log.warning(
            "cluster %s node %s: %s",
            change.after.cluster,
            change.after.machine_id,
            change.reason,
            extra=about(change.after),
        )
    hosts: Mapping[str, str] = {name: node.host for node, name in named}
    for name, why in known.failures.items():
        if name in hosts:
            text = "name %s: not resolved: %s; nodes with this name keep address %s"
            _limited.warning(name, monotonic(), text, name, why, hosts[name])


def start(context: Context) -> None:
    """Start `run` in a thread, unless one runs: the sweep must not wait for a name server."""
    if all(thread.name != _THREAD for thread in threading.enumerate()):
        threading.Thread(target=_round, args=(context,), name=_THREAD, daemon=True).start()


def _round(context: Context) -> None:
    with _rounds.guard():
        run(context)
