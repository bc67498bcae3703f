"""``clusterer node-add``, ``node-edit``, ``node-remove``: one row of the table at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from clusterer.cli.options import CLUSTER, NODE, Number, operator, with_context, with_options
from clusterer.ids import MAX_ID

if TYPE_CHECKING:
    from clusterer.services import Context
    from clusterer.services.provision import Changes

COUNT = Number(0, MAX_ID)


with_columns = with_options(
    click.option("--state", type=click.Choice(["0", "1"]), help="State of the node: 0 down, 1 up."),
    click.option(
        "--failed-attempts", type=COUNT, metavar="N", help="Failed attempts that disable the node."
    ),
    click.option(
        "--duration", type=COUNT, metavar="N", help="Seconds that the node stays disabled."
    ),
    click.option("--description", metavar="TEXT", help="Text that `clusterer list` shows."),
)
"""Gives a command options for the columns that operators set."""


@click.command(name="node-add")
@CLUSTER
@NODE
@click.argument("url")
@with_columns
@with_context
def node_add(context: Context, *, cluster: int, node: int, url: str, **columns: Any) -> None:
    """Add a node to the table, in effect at once.

    The command checks the row as a reload does. No other node changes. URL is
    protocol:host:port:

    \b
        clusterer node-add 1 3 bin:192.0.2.3:5566 --description "Node C"
    """  # noqa: D301 - \b is click's mark for lines to be kept as they are
    from clusterer.services import provision as service

    values = {"cluster_id": cluster, "machine_id": node, "url": url, **given(columns)}
    print_changes(service.add(context, values, by=operator()))


@click.command(name="node-edit")
@CLUSTER
@NODE
@click.option("--url", metavar="URL", help="New address, protocol:host:port.")
@with_columns
@with_context
def node_edit(context: Context, *, cluster: int, node: int, **columns: Any) -> None:
    """Change a node's row in the table, in effect at once.

    Only the columns of the given options change. A node whose address stays keeps its counters
    and loses no packet. Without --state the node keeps its state.
    """
    from clusterer.services import provision as service

    values = given(columns)
    if not values:
        raise click.UsageError("Nothing to change: name a column, such as --description TEXT.")
    print_changes(service.edit(context, (cluster, node), values, by=operator()))


@click.command(name="node-remove")
@CLUSTER
@NODE
@with_context
def node_remove(context: Context, *, cluster: int, node: int) -> None:
    """Remove a node from the table, in effect at once.

    Packets that the node has not received are deleted with the node.
    """
    from clusterer.services import provision as service

    print_changes(service.remove(context, (cluster, node), by=operator()))


def given(columns: dict[str, Any]) -> dict[str, Any]:
    """Return the columns whose options were given."""
    values = {name: value for name, value in columns.items() if value is not None}
    return values | ({"state": int(values["state"])} if "state" in values else {})


def print_changes(changes: Changes) -> None:
    """Print the change of the row."""
    where = f"table {changes.table} in {changes.database}"
    for change in changes.added:
        click.echo(f"Added to {where}: {change.name}.")
    for change in changes.changed:
        click.echo(f"Changed in {where}: {change.name} ({change.differences}).")
    for change in changes.removed:
        click.echo(f"Removed from {where}: {change.name}.")
    if changes.unchanged:
        again = ", and in effect again" if changes.in_effect_again else ""
        click.echo(f"Nothing changed in {where}: the row has these values already{again}.")
