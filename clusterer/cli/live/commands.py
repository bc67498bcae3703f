"""``clusterer top`` and ``clusterer watch``: live views, which are imported when they run."""

from __future__ import annotations

import click

from clusterer.cli.options import NODE, Seconds, cluster_option, with_settings
from clusterer.settings import Settings

_interval = click.option(
    "--interval",
    metavar="S",
    type=Seconds(0.2, 3600),
    default=1.0,
    help="Seconds between two refreshes.",
)


@click.command()
@_interval
@click.option("--once", is_flag=True, help="Print the nodes once, as in a pipe.")
@with_settings()
def top(settings: Settings, *, interval: float, once: bool) -> None:
    """Show all nodes live: state, backlog, traffic.

    The screen refreshes until q; arrow keys, space and b scroll. In a pipe, or with --once, the
    command measures one interval, prints the nodes and ends.
    """
    from clusterer.cli.live.top import run

    run(settings, interval, once=once)


@click.command()
@NODE
@cluster_option("Show the node of this cluster_id only.")
@_interval
@with_settings()
def watch(settings: Settings, *, node: int, cluster: int | None, interval: float) -> None:
    """Follow one node: state, backlog, traffic, events.

    NODE is its machine_id. The command shows the node in each of its clusters, or in the one of
    --cluster. The screen refreshes until q. In a pipe the command prints a line per change, until
    Ctrl-C.

    Numbers from ten million on are in millions (M).
    """
    from clusterer.cli.live.watch import run

    run(settings, node, cluster, interval)
