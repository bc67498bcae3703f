"""The checks of addresses: all of the table, the own row's, and the connection to every node."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from clusterer.ids import PROTO_BIN
from clusterer.membership import ADVICE, Condition, Node, address_warnings
from clusterer.runtime.routes import is_local
from clusterer.services.context import Context
from clusterer.services.doctor.finding import Finding, error, ok, skipped, warn
from clusterer.services.periodic import reach

CHECKS = ("addresses", "own row", "nodes from here")

_NAMED = 10


def check(context: Context) -> Iterator[Finding]:
    """Check the own row and try to connect to all nodes."""
    nodes = [node for view in context.nodes.views().values() for node in view.nodes.values()]
    yield from _together(nodes)
    yield from _own(context, nodes)
    yield from judged(CHECKS[2], "", reach.run(context), nodes)


def unknown() -> Iterator[Finding]:
    """Yield the findings without Redis: every check is skipped."""
    return (skipped(name, "needs Redis") for name in CHECKS)


def _together(nodes: list[Node]) -> Iterator[Finding]:
    found = address_warnings(nodes)
    if not found:
        yield ok(CHECKS[0], "each node has its own address, which other hosts can reach")
    for warning in found[:_NAMED]:
        yield warn(CHECKS[0], warning.text, ADVICE)
    if len(found) > _NAMED:
        yield warn(CHECKS[0], f"and {len(found) - _NAMED} more like these", ADVICE)


def _own(context: Context, nodes: list[Node]) -> Iterator[Finding]:
    name, server_id = CHECKS[1], context.settings.server_id
    if not server_id:
        yield skipped(name, "server_id is not set: doctor knows no own row")
        return
    own = [node for node in nodes if node.machine_id == server_id and node.protocol == PROTO_BIN]
    if not own:
        yield error(
            name,
            f"instance {server_id} has no row in any bin cluster, and neither listens nor sends",
            "add its row to the table and run `clusterer reload`, or correct server_id",
        )
    for node in own:
        yield _own_row(node, anywhere=context.settings.allow_foreign_source)


def _own_row(node: Node, *, anywhere: bool) -> Finding:
    name = CHECKS[1]
    text = f"cluster {node.cluster_id} node {node.machine_id} ({node.url})"
    if not is_local(node.host):
        text += f": {node.host} is not an address of this host"
        if anywhere:
            return warn(name, text, "allow_foreign_source is set: peers must not check sources")
        return error(
            name, text, "run the instance on the host with this address, or correct the row's url"
        )
    if node.condition is not Condition.UP:
        return warn(
            name,
            f"{text} is {node.condition.value}: other nodes do not send to it",
            f"see `clusterer events --node {node.machine_id}`",
        )
    return ok(name, f"{text} is local and up")


def judged(
    check_name: str, whence: str, answer: Mapping[str, Any], nodes: list[Node]
) -> Iterator[Finding]:
    """Yield the findings of an answer of `reach`: one if all nodes were reached, else one each."""
    errors, tried = answer["errors"], answer["tried"]
    known = {reach.name_of(node): node for node in nodes}
    reached = f"{tried - len(errors)} of {tried} BIN ports reached{whence}"
    if not errors:
        yield ok(check_name, reached)
        return
    for place, why in sorted(errors.items())[:_NAMED]:
        yield _unreached(check_name, whence, place, known.get(place), why)
    if len(errors) > _NAMED:
        advice = "check the network first: so many nodes rarely fail at once"
        yield error(check_name, f"and {len(errors) - _NAMED} more; {reached}", advice)


def _unreached(check_name: str, whence: str, place: str, node: Node | None, why: str) -> Finding:
    url = f" ({node.url})" if node else ""
    cluster_id, _, machine_id = place.partition("/")
    which = f"{cluster_id} {machine_id}"
    return error(
        check_name,
        f"cluster {cluster_id} node {machine_id}{url} not reached{whence}: {why}",
        f"start `clusterer node --server-id {machine_id}` (or OpenSIPS) on the node's host; check "
        "the firewalls between; if the node is away for long: "
        f"`clusterer set-status {which} 0 {PROTO_BIN}`",
    )
