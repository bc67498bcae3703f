"""Tables and words for people: coloured in a terminal, plain and 80 columns wide in a pipe."""

from __future__ import annotations

import sys
from collections.abc import Iterator

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from clusterer.membership import Condition, Node
from clusterer.services.listing import Listing, Traffic
from clusterer.store import ClusterView

COLUMNS = 80
"""Width in a pipe."""

STYLES = {
    Condition.UP: "green",
    Condition.PROBING: "yellow",
    Condition.DISABLED: "red",
    Condition.DOWN: "red",
}


def console(*, error: bool = False) -> Console:
    """Return a console on stdout or stderr that uses colours in a terminal only."""
    stream = sys.stderr if error else sys.stdout
    width = None if stream.isatty() else COLUMNS
    return Console(stderr=error, width=width, highlight=False, soft_wrap=False)


def state_word(condition: Condition) -> Text:
    """Return up, probing, disabled or down."""
    return Text(condition.value, STYLES[condition])


def tables(listing: Listing) -> Iterator[Table]:
    """Return one table per cluster, then one of the packets sent, if there were any."""
    for view in listing.clusters:
        yield _nodes_table(listing, view)
    if listing.traffic:
        yield _traffic_table(listing.traffic)


def _table(title: str) -> Table:
    return Table(
        title=title,
        title_justify="left",
        title_style="bold",
        header_style="bold",
        box=box.SIMPLE_HEAD,
    )


def _nodes_table(listing: Listing, view: ClusterView) -> Table:
    table = _table(f"Cluster {view.key.cluster_id}, protocol {view.key.protocol}")
    table.add_column("Machine", justify="right")
    table.add_column("URL", overflow="fold")
    table.add_column("State", no_wrap=True)
    table.add_column("Tries", justify="right", no_wrap=True)
    table.add_column("Enabled in", justify="right", no_wrap=True)
    table.add_column("Description", overflow="fold")
    for node in view.nodes.values():
        table.add_row(*_node_cells(listing, node))
    return table


def _node_cells(listing: Listing, node: Node) -> tuple[str | Text, ...]:
    seconds = listing.enabled_in_s(node)
    own = "* " if node.machine_id == listing.server_id else ""
    return (
        f"{own}{node.machine_id}",
        Text(node.url),
        state_word(node.condition),
        f"{node.no_tries}/{node.failed_attempts}",
        "" if seconds is None else f"{seconds} s",
        Text(node.description),
    )


def _traffic_table(traffic: tuple[Traffic, ...]) -> Table:
    table = _table("Packets")
    for name in ("From", "To", "Cluster", "Backlog", "Sent", "Failed", "Skipped", "Lost"):
        table.add_column(name, justify="right", no_wrap=True)
    for item in traffic:
        numbers = (item.sent, item.failed, item.skipped, item.lost)
        table.add_row(
            str(item.sender),
            str(item.machine_id),
            f"{item.cluster_id} {item.protocol}",
            "?" if item.backlog is None else str(item.backlog),
            *map(str, numbers),
        )
    return table
