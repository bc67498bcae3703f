"""Paths that are not up: whether a node is dead, a link is broken, or a host is cut off."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from clusterer.membership import Condition, Node, State
from clusterer.membership.views import all_nodes
from clusterer.services.context import Context
from clusterer.services.doctor.finding import Finding, bounded, error, listed, ok, warn
from clusterer.services.status import failures, paths
from clusterer.services.status.paths import BrokenPath
from clusterer.store import ClusterView

CHECK = "paths"

_NAMED = 10
"""Findings that are named, one a line."""

_ALIVE_MS = 5000
"""A prober whose heartbeat is older may be gone."""

_LEAST = 2
"""Number of other hosts that must agree before the check reports a single host."""

_NOT_UP = (Condition.PROBING, Condition.DISABLED)


def check(context: Context) -> Iterator[Finding]:
    """Read all records of paths and the present probers. Raises `StateUnavailable`."""
    views = list(context.nodes.views().values())
    records, now_ms = paths.read(context)
    now_ms = now_ms or context.paths.now_ms()
    found = paths.broken(views, records, now_ms)
    addresses = _addresses(views)
    nodes = [node for node in all_nodes(views) if node.state is State.PROBING]
    failed = failures.read(context, nodes)
    findings: list[Finding] = []
    for view in views:
        alive = {
            address
            for machine_id, at_ms in context.probers.present(view.key).items()
            if now_ms - at_ms <= _ALIVE_MS
            for address in addresses.get(machine_id, ())
        }
        of_view = [item for item in found if item.node.cluster == view.key]
        reasons = {i: failure.reason for (key, i), failure in failed.items() if key == view.key}
        findings += judged(view, of_view, alive, reasons)
    yield from bounded(findings, _NAMED, "`clusterer paths` shows all; look at the network first")
    if not findings:
        yield ok(CHECK, "no sender reports a path that is not up")


def _addresses(views: Collection[ClusterView]) -> Mapping[int, set[str]]:
    """Return the addresses of each machine_id, in all clusters."""
    found: dict[int, set[str]] = {}
    for view in views:
        for machine_id, node in view.nodes.items():
            found.setdefault(machine_id, set()).add(node.host)
    return found


def judged(
    view: ClusterView,
    found: Sequence[BrokenPath],
    alive: Collection[str],
    reasons: Mapping[int, str] = MappingProxyType({}),
) -> Iterator[Finding]:
    """Yield what is at fault in a cluster. Pure.

    ``found``: its paths that are not up; ``alive``: addresses of hosts with a delivery worker. A
    host is an address. ``reasons``: machine_id of a node that is not up → why an attempt to reach
    the node failed last: without traffic, no path tells.
    """
    cluster = _Cluster(view, found, {*alive}, reasons)
    cut_off = {host for host in cluster.hosts if cluster.is_cut_off(host)}
    for host in sorted(cut_off):
        yield cluster.cut_off(host)
    links: dict[tuple[str, str], list[BrokenPath]] = {}
    for item in found:
        between = sorted((cluster.host_of(item.sender), item.node.host))
        if not cut_off & {*between} and cluster.is_link(item):
            links.setdefault((between[0], between[1]), []).append(item)
    for (one, other), items in sorted(links.items()):
        yield _link(one, other, items)
    for node in view.nodes.values():
        linked = any(node is item.node for items in links.values() for item in items)
        if node.condition in _NOT_UP and node.host not in cut_off and not linked:
            yield cluster.dead(node)


@dataclass(frozen=True)
class _Cluster:
    """What the paths of one cluster say about its hosts; the fields are those of `judged`."""

    view: ClusterView
    found: Sequence[BrokenPath]
    alive: set[str]
    reasons: Mapping[int, str]

    @property
    def hosts(self) -> set[str]:
        """Addresses of the nodes that no operator took down."""
        nodes = self.view.nodes.values()
        return {node.host for node in nodes if node.condition is not Condition.DOWN}

    def host_of(self, sender: int) -> str:
        """Return the address of a sender; its number if it has no node any more."""
        node = self.view.nodes.get(sender)
        return str(sender) if node is None else node.host

    def is_cut_off(self, host: str) -> bool:
        """Whether a host that is alive reaches none of the others that are, two at least."""
        others = self.hosts & self.alive - {host}
        if len(others) < _LEAST or host not in self.alive:
            return False
        own = [node for node in self.view.nodes.values() if node.host == host]
        if all(node.condition in _NOT_UP for node in own):
            return not self._refused(own)
        return {item.node.host for item in self._found_between({host}, others)} >= others

    def is_link(self, item: BrokenPath) -> bool:
        """Whether a path shows a broken link: both of its ends are alive."""
        host, to = self.host_of(item.sender), item.node.host
        if host == to:
            return False
        if item.node.condition is Condition.UP:
            return True
        return (
            not self._refused([item.node])
            and {host, to} <= self.alive
            and len(self.alive & self.hosts) == len({host, to})
        )

    def cut_off(self, host: str) -> Finding:
        """Tell of a host for which `is_cut_off` is true."""
        ids = [str(i) for i, node in self.view.nodes.items() if node.host == host]
        others = f"the {len(self.hosts & self.alive - {host})} other hosts"
        of_host = f"host {host} (node{'s' if len(ids) > 1 else ''} {', '.join(ids)})"
        found = self._found_between({host}, self.hosts)
        what = (
            f"{of_host} reaches none of {others}"
            if found
            else f"none of {others} reaches {of_host}"
        )
        why = _named(found or self._found_between(self.hosts, {host}))
        return error(
            CHECK,
            f"{what}, though its worker is alive" + (f": {why}" if why else ""),
            f"look at the network of host {host}: interface, switch, firewall; "
            "the other hosts continue",
        )

    def dead(self, node: Node) -> Finding:
        """Tell of a node that is not up, as far as is known."""
        where = f"cluster {node.cluster_id} node {node.machine_id} ({node.url})"
        asked = len((self.alive & self.hosts) - {node.host})
        refused = self._refused([node])
        start = f"start `clusterer node --server-id {node.machine_id}` (or OpenSIPS) there"
        if refused or asked >= _LEAST:
            seen = f": {refused}" if refused else f": none of {asked} hosts reaches the node"
            return error(CHECK, f"{where} is dead{seen}", start)
        which = "only one other host" if asked else "no other host"
        return warn(
            CHECK,
            f"{where} is {node.condition.value}; not known whether the node is dead or a link is "
            f"broken: {which} can say",
            f"look at the host of node {node.machine_id}, and {start} if it does not run; if it "
            "runs, look for a firewall between",
        )

    def _found_between(self, from_: Collection[str], to: Collection[str]) -> list[BrokenPath]:
        return [
            item
            for item in self.found
            if self.host_of(item.sender) in from_
            and item.node.host in to
            and item.node.host != self.host_of(item.sender)
        ]

    def _refused(self, nodes: Sequence[Node]) -> str:
        """Return the reason of a failure in which a node refused a connection: the host answers."""
        reasons = [item.path.reason for item in self.found if item.node in nodes]
        reasons += [self.reasons.get(node.machine_id, "") for node in nodes]
        return next((reason for reason in reasons if "refused" in reason.lower()), "")


def _link(one: str, other: str, items: Sequence[BrokenPath]) -> Finding:
    return error(
        CHECK,
        f"the link between hosts {one} and {other} is broken: {_named(items)}",
        "look for a firewall or a route between these two hosts: other hosts reach them; these "
        "senders skip these nodes until the link works",
    )


def _named(items: Sequence[BrokenPath]) -> str:
    texts = [
        f"{item.sender} does not reach node {item.node.machine_id}"
        + (f" ({item.path.reason})" if item.path.reason else "")
        for item in items
    ]
    return listed(texts)
