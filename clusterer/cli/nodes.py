"""``clusterer list`` and ``clusterer set-status``."""

from __future__ import annotations

import json
from contextlib import closing

import click

from clusterer.cli import completion
from clusterer.cli.operator import operator
from clusterer.cli.options import ID, with_settings
from clusterer.ids import PROTO_BIN
from clusterer.services import Context
from clusterer.services.admin import set_status as service
from clusterer.services.status import listing
from clusterer.settings import Settings


@click.command(name="list")
@click.option("--json", "as_json", is_flag=True, help="One JSON object with everything known.")
@click.option("--traffic", is_flag=True, help="Packets of each sender to each node.")
@with_settings()
def list_nodes(settings: Settings, *, as_json: bool, traffic: bool) -> None:
    """Show all nodes of all clusters, and the packets sent to them.

    The instance's own row carries a star. Tries are failed attempts so far and how many
    disable a node. A second table shows, for each node that packets were sent to, how many
    machines sent some, the packets still in their logs (backlog), how long the oldest has waited,
    packets sent, failed, skipped because the node was not up, lost, and when the last was
    delivered. With --traffic it shows each sender and node that has any traffic. From ten million
    on packets are in millions (M).
    """
    with closing(Context(settings)) as context:
        found = listing.run(context)
    if as_json:
        click.echo(json.dumps(listing.as_json(found, pairs=traffic)))
        return
    if not found.clusters:
        click.echo("No clusters. Fill the table, then run `clusterer reload`.")
        return
    from clusterer.cli import output  # noqa: PLC0415 - rich takes a while, --json needs none

    output.show(found, pairs=traffic)


@click.command(name="set-status")
@click.argument("cluster", type=ID, shell_complete=completion.clusters)
@click.argument("machine", type=ID, shell_complete=completion.machines)
@click.argument("status", type=click.Choice(["0", "1"]))
@click.argument("proto", default=PROTO_BIN, shell_complete=completion.protocols)
@click.option("--reason", metavar="TEXT", default="", help="Why; shown by `clusterer events`.")
@with_settings()
def set_status(
    settings: Settings, *, cluster: int, machine: int, status: str, proto: str, reason: str
) -> None:
    """Take a node down (STATUS 0) or up (STATUS 1).

    A node taken down stays down, and gets no packets, until somebody sets it up again.
    Reaches every row of the cluster, the own one included. PROTO is the node's protocol,
    bin if it is left out.
    `clusterer events` shows who did it, where from, and why:

    \b
        clusterer set-status 1 2 0 --reason "kernel update"
    """  # noqa: D301 - \b is click's mark for lines to be kept as they are
    with closing(Context(settings)) as context:
        node = service.run(
            context, cluster, machine, int(status), proto, by=operator(), reason=reason
        )
    click.echo(f"Cluster {cluster}, machine {machine} ({node.url}) is {node.condition.value}.")
