"""Links of 3.x clusters that are not up although the node's BIN port can be reached."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from clusterer.ids import PROTO_BIN
from clusterer.membership import Condition, Node
from clusterer.services.context import Context
from clusterer.services.doctor.finding import Finding, bounded, ok, warn
from clusterer.services.status import links
from clusterer.services.status.links import SeenLink
from clusterer.store import ClusterKey
from clusterer.store.links import LinkRecord

CHECK = "links"

JOINING_S = 10.0
"""A link that is not up for less than this time may still come up."""

_NAMED = 10


def check(context: Context) -> Iterator[Finding]:
    """Read the links of all instances; nothing without a 3.x cluster. Raises `StateUnavailable`."""
    clusters = context.settings.dialect3
    seen = [each for each in links.run(context) if each.cluster_id in clusters]
    now_s = context.paths.now_ms() / 1000
    views = {i: context.nodes.view(ClusterKey(i, PROTO_BIN)) for i in sorted(clusters)}
    findings = list(silent(seen, {i: view.nodes for i, view in views.items()}, now_s))
    yield from bounded(findings, _NAMED, "begin with those above")
    if not findings:
        count = len(seen)
        yield ok(
            CHECK, f"{count} links of instances in OpenSIPS 3.x clusters, none needs attention"
        )


def silent(
    seen: Sequence[SeenLink], nodes: Mapping[int, Mapping[int, Node]], now_s: float
) -> Iterator[Finding]:
    """Yield a finding per link whose node does not answer pings but is up otherwise. Pure.

    ``nodes``: cluster_id → the nodes of the cluster by machine_id. The check of the paths reports a
    node whose port cannot be reached.
    """
    for each in seen:
        node = nodes.get(each.cluster_id, {}).get(each.machine_id)
        if node is None or node.condition is not Condition.UP or not _missing(each.record, now_s):
            continue
        where = f"cluster {each.cluster_id}: instance {each.instance}"
        own = nodes[each.cluster_id].get(each.instance)
        yield warn(
            CHECK,
            f"{where} gets no answer to its pings from node {each.machine_id} ({node.url}), whose "
            f"BIN port can be reached{_through(each.record, each.machine_id)}",
            f"the table of node {each.machine_id} must have node {each.instance}"
            + (f" with the address of {own.url}" if own is not None else "")
            + f": look there, and run `opensips-cli -x mi clusterer_reload` on node "
            f"{each.machine_id}, which must be OpenSIPS 3.2 or later",
        )


def _missing(link: LinkRecord, now_s: float) -> bool:
    return link.state != "up" and now_s - link.since > JOINING_S


def _through(link: LinkRecord, machine_id: int) -> str:
    """Return how packets of other nodes show the node to be alive; empty if they do not."""
    if link.next_hop is None or link.next_hop == machine_id:
        return ""
    return f", and which node {link.next_hop} reaches"
