"""``clusterer list``, ``paths``, ``set-status`` and ``forget``: the nodes in Redis."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from clusterer.cli import completion
from clusterer.cli.options import (
    CLUSTER,
    DRY_RUN,
    ID,
    JSON,
    NODE,
    REASON,
    cluster_option,
    node_option,
    operator,
    with_context,
)
from clusterer.cli.text import age
from clusterer.ids import PROTO_BIN

if TYPE_CHECKING:
    from clusterer.services import Context
    from clusterer.services.admin.forget import Forgotten


@click.command(name="list")
@JSON
@click.option("--traffic", is_flag=True, help="Show the packets of each sender to each node.")
@node_option("--seen-by", about="Show the nodes as this sender sees them.")
@with_context
def list_nodes(context: Context, *, as_json: bool, traffic: bool, seen_by: int | None) -> None:
    """Show all nodes of all clusters, and the packets sent to them.

    A star marks the instance's own row. The state is the verdict: not up if no host reaches the
    node. Tries are the failed attempts so far and the number that disables the node. If a sender
    does not reach a node that is up, a column shows how many do; --seen-by shows the states for
    one sender, `clusterer paths` the reasons.

    The second table shows, for each node: its senders, the packets in their logs (backlog), the
    age of the oldest, the packets sent, failed, skipped because the path was not up, and lost,
    and the time of the last delivery. --traffic shows the same for each pair of sender and node.
    Numbers from ten million on are in millions (M).
    """
    from clusterer.services.status import node_list

    found = node_list.run(context, seen_by or 0, pairs=traffic)
    if as_json:
        click.echo(json.dumps(node_list.as_json(found, pairs=traffic)))
        return
    if not found.clusters:
        click.echo("No clusters. Fill the table, then run `clusterer reload`.")
        return
    from clusterer.cli import output

    output.show(found, pairs=traffic)


@click.command()
@cluster_option("Show paths of this cluster_id only.")
@node_option("--sender", about="Show paths from this machine_id only.")
@node_option("--node", about="Show paths to this machine_id only.")
@JSON
@with_context
def paths(
    context: Context,
    *,
    cluster: int | None,
    sender: int | None,
    node: int | None,
    as_json: bool,
) -> None:
    """Show which senders do not reach which nodes, since when, and why.

    A sender skips a node that the sender does not reach; other senders send to the node. The
    verdict is the state of the node: not up if no host reaches the node. The command prints
    only paths that are not up. `clusterer events --paths` shows the past.

    Of clusters of OpenSIPS 3.x nodes the command also prints all links: those of the instances, and
    those that the nodes announced.
    """
    from clusterer.services.status import broken_paths, links

    found = broken_paths.run(context, broken_paths.Filter(cluster, sender, node))
    seen = links.run(context, cluster, sender, node)
    if as_json:
        click.echo(json.dumps(broken_paths.as_json(found) | {"links": links.as_json(seen)}))
        return
    if not found.rows:
        click.echo("All paths are up.")
    if found.rows or seen:
        from clusterer.cli import links as links_table
        from clusterer.cli import output

        output.show_paths(found)
        links_table.show(seen, found.now)


@click.command(name="set-status")
@CLUSTER
@NODE
@click.argument("status", type=click.Choice(["0", "1"]))
@click.argument("proto", default=PROTO_BIN, shell_complete=completion.protocols)
@REASON
@with_context
def set_status(
    context: Context, *, cluster: int, node: int, status: str, proto: str, reason: str
) -> None:
    """Take a node down (STATUS 0) or up (STATUS 1).

    A node that is down receives no packets until an operator sets the node up. The command can
    set every node of the cluster, also the instance's own. PROTO is the node's protocol; the
    default is bin. `clusterer events` shows the operator, the host and the reason:

    \b
        clusterer set-status 1 2 0 --reason "kernel update"
    """  # noqa: D301 - \b is click's mark for lines to be kept as they are
    from clusterer.services.admin import set_status as service

    done = service.run(context, cluster, node, int(status), proto, by=operator(), reason=reason)
    click.echo(f"Cluster {cluster}, node {node} ({done.url}) is {done.condition.value}.")


@click.command()
@click.argument("machine_id", type=ID)
@REASON
@click.option("--force", is_flag=True, help="Delete also a machine_id in use, with its packets.")
@DRY_RUN
@with_context
def forget(context: Context, *, machine_id: int, reason: str, force: bool, dry_run: bool) -> None:
    """Delete what Redis keeps of a machine_id that is no longer used.

    The command deletes the packet log, counters and offsets of the sender, and the registrations
    and last-seen times of the instance. Without --force the command rejects a machine_id that
    has a node, an instance that is alive, or packets that are not delivered. The sweep job
    deletes the same, without packets, when a machine_id without a node was not used for a day.
    """
    from clusterer.services.admin import forget as service

    done = service.run(
        context, machine_id, by=operator(), reason=reason, force=force, dry_run=dry_run
    )
    done_or_not = "Would delete" if dry_run else "Deleted"
    click.echo(f"{done_or_not} the data of machine_id {machine_id}: {_kept(done)}.")
    for name in done.keys:
        click.echo(f"  {name}")


def _kept(done: Forgotten) -> str:
    lost = f" ({done.undelivered} log entries not delivered)" if done.undelivered else ""
    alive = "never alive" if done.alive_s is None else f"last alive {age(done.alive_s)} ago"
    return f"{done.packets} packets sent{lost}, instance {alive}, {len(done.keys)} keys"
