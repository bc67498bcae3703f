"""Prints tables: coloured in a terminal, plain and 80 columns wide in a pipe."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from clusterer.cli import text
from clusterer.membership import Condition, Node
from clusterer.runtime.logs import plain
from clusterer.services.status import totals
from clusterer.services.status.listing import Listing
from clusterer.services.status.paths import Reach
from clusterer.services.status.traffic import Traffic
from clusterer.store import ClusterKey, ClusterView

COLUMNS = 80
"""Width in a pipe."""

_LEAST_COLUMNS = 72
"""Least width of a table: a narrower terminal wraps the lines, which stay readable."""

_WHOLE_URL = 30
"""Characters of a URL that stay on one line."""

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


def show(listing: Listing, *, pairs: bool = False) -> None:
    """Print the listing's tables; with ``pairs`` the traffic of each sender to each node."""
    found = console()
    found.width = max(found.width, _LEAST_COLUMNS)
    for table in tables(listing, pairs=pairs):
        found.print(table)


def tables(listing: Listing, *, pairs: bool = False) -> Iterator[Table]:
    """Yield for each cluster the table of its nodes and, if there was any, of the traffic."""
    for view in listing.clusters:
        yield _nodes_table(listing, view)
        traffic = [item for item in listing.traffic if (item.cluster_id, item.protocol) == view.key]
        if traffic:
            yield _traffic_table(view.key, traffic, listing.now, pairs=pairs)


def _table(title: str, gap: int = 1) -> Table:
    return Table(
        padding=(0, 1, 0, gap),
        title=title,
        title_justify="left",
        title_style="bold",
        header_style="bold",
        box=box.SIMPLE_HEAD,
    )


def _nodes_table(listing: Listing, view: ClusterView) -> Table:
    seen_by = f", as {listing.seen_by} sees it" if listing.seen_by else ""
    reach = _reach(listing, view)
    title = f"Cluster {view.key.cluster_id}, protocol {view.key.protocol}{seen_by}"
    table = _table(title, gap=0 if reach else 1)
    table.add_column("Node", justify="right")
    longest = max((len(_place(node)) for node in view.nodes.values()), default=0)
    table.add_column("URL", overflow="fold", min_width=min(longest, _WHOLE_URL))
    table.add_column("State", no_wrap=True)
    table.add_column("Tries", justify="right", no_wrap=True)
    table.add_column("Enabled in", justify="right", no_wrap=True)
    if reach:
        table.add_column("Reached by", no_wrap=True)
    table.add_column("Description", overflow="fold")
    for node in view.nodes.values():
        cells = _node_cells(listing, listing.seen(node))
        if reach:
            cells.append(_reach_cell(reach.get(node.machine_id)))
        table.add_row(*cells, Text(plain(node.description)))
    return table


def paths_table(key: ClusterKey, rows: Sequence[Sequence[str]]) -> Table:
    """Return a cluster's paths that are not up: sender, node, state, tries, times, reason."""
    table = _table(f"Paths of cluster {key.cluster_id}, protocol {key.protocol}", gap=0)
    for name in ("From", "To", "State", "Tries", "Since", "Failed", "Verdict"):
        table.add_column(name, justify="right" if name in _NUMBERS else "left", no_wrap=True)
    table.add_column("Reason", overflow="fold")
    for sender, node, state, tries, since, failed, verdict, reason in rows:
        words = (state_word(Condition(word)) for word in (state, verdict))
        table.add_row(sender, node, next(words), tries, since, failed, next(words), Text(reason))
    return table


_NUMBERS = ("From", "To", "Tries")


def _reach(listing: Listing, view: ClusterView) -> Mapping[int, Reach]:
    """Return how many senders reach each node, if that says more than the states do."""
    if listing.seen_by:
        return {}
    found = listing.reach(view)
    up = (reach for i, reach in found.items() if view.nodes[i].condition is Condition.UP)
    return found if any(reach.reached < reach.senders for reach in up) else {}


def _node_cells(listing: Listing, node: Node) -> list[str | Text]:
    seconds = listing.enabled_in_s(node)
    own = "* " if node.machine_id == listing.server_id else ""
    return [
        f"{own}{node.machine_id}",
        Text(_place(node)),
        state_word(node.condition),
        f"{node.no_tries}/{node.failed_attempts}",
        "" if seconds is None else f"{seconds} s",
    ]


def _reach_cell(reach: Reach | None) -> Text:
    if reach is None:
        return Text()
    return Text(str(reach), "yellow" if reach.reached < reach.senders else "")


def _place(node: Node) -> str:
    """Return the URL, and behind a URL with a name the address to which the name resolves."""
    url = plain(node.url)
    return url if node.host in node.url else f"{url} ({plain(node.host)})"


def _traffic_table(
    key: ClusterKey, traffic: Sequence[Traffic], now: float, *, pairs: bool
) -> Table:
    table = _table(f"Packets to cluster {key.cluster_id}, protocol {key.protocol}", gap=0)
    first = "From" if pairs else "Senders"
    for name in (first, "To", "Backlog", "Oldest", *_COUNTERS, "Delivered"):
        table.add_column(name, justify="right", no_wrap=True)
    if pairs:
        for item in traffic:
            table.add_row(str(item.sender), str(item.machine_id), *_traffic_cells(item, now))
    else:
        for node in totals.by_node(traffic):
            table.add_row(str(node.senders), str(node.machine_id), *_traffic_cells(node, now))
    return table


def _traffic_cells(item: Traffic | totals.ToNode, now: float) -> tuple[str, ...]:
    numbers = (item.sent, item.failed, item.skipped, item.lost)
    return (
        "?" if item.backlog is None else count(item.backlog),
        "-" if item.oldest_s is None else text.age(item.oldest_s),
        *map(count, numbers),
        text.ago(item.last_delivered, now),
    )


_COUNTERS = ("Sent", "Failed", "Skipped", "Lost")


def count(number: int) -> str:
    """Return a number of packets in at most 7 characters."""
    return str(number) if number < 10**7 else f"{number // 10**6}M"
