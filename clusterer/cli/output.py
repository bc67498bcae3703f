"""Prints tables: coloured in a terminal, plain and 80 columns wide in a pipe."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence

from rich.console import Console
from rich.text import Text

from clusterer.cli import text
from clusterer.cli.grid import Grid
from clusterer.membership import Condition, Node
from clusterer.runtime.logs import plain
from clusterer.services.status.broken_paths import BrokenPaths, Row
from clusterer.services.status.node_list import NodeList
from clusterer.services.status.paths import Reach
from clusterer.services.status.totals import ToNode
from clusterer.services.status.traffic import Traffic
from clusterer.store import ClusterKey, ClusterView

COLUMNS = 80
"""Width in a pipe."""

_LEAST_COLUMNS = 72
"""Least width of a table: a narrower terminal wraps the lines, which stay readable."""

_WHOLE_URL = 30
"""Characters of a URL that stay on one line."""


def console() -> Console:
    """Return a console on stdout that uses colours in a terminal only."""
    width = None if sys.stdout.isatty() else COLUMNS
    return Console(width=width, highlight=False, soft_wrap=False)


def state_word(condition: Condition) -> Text:
    """Return up, probing, disabled or down."""
    return Text(condition.value, text.COLOURS[condition.value])


def state_cells(node: Node, now: float) -> tuple[Text, str, str]:
    """Return the cells for the state of a node: the state, the tries, and the seconds until a
    disabled node is enabled.
    """
    seconds = node.enabled_in_s(now)
    return (
        state_word(node.condition),
        f"{node.no_tries}/{node.failed_attempts}",
        "" if seconds is None else f"{seconds} s",
    )


def show(known: NodeList, *, pairs: bool = False) -> None:
    """Print the tables; with ``pairs`` the traffic of each sender to each node."""
    found = console()
    found.width = max(found.width, _LEAST_COLUMNS)
    for table in tables(known, pairs=pairs):
        table.print(found)


def tables(known: NodeList, *, pairs: bool = False) -> Iterator[Grid]:
    """Yield for each cluster the table of its nodes and, if there was any, of the traffic."""
    for view in known.clusters:
        yield _nodes_table(known, view)
        items: Sequence[Traffic | ToNode] = known.traffic if pairs else known.sums.to_nodes
        traffic = [item for item in items if item.node_key[0] == view.key]
        if traffic:
            yield _traffic_table(view.key, traffic, known.now)


def _nodes_table(known: NodeList, view: ClusterView) -> Grid:
    seen_by = f", as {known.seen_by} sees it" if known.seen_by else ""
    reach = _reach(known, view)
    title = f"Cluster {view.key.cluster_id}, protocol {view.key.protocol}{seen_by}"
    table = Grid(title, gap=0 if reach else 1)
    table.column("Node", right=True, fold=True)
    longest = max((len(_place(node)) for node in view.nodes.values()), default=0)
    table.column("URL", fold=True, least=min(longest, _WHOLE_URL))
    table.column("State")
    table.column("Tries", right=True)
    table.column("Enabled in", right=True)
    if reach:
        table.column("Reached by")
    table.column("Description", fold=True)
    for node in view.nodes.values():
        own = "* " if node.machine_id == known.server_id else ""
        table.row(
            f"{own}{node.machine_id}",
            _place(node),
            *state_cells(known.seen(node), known.now),
            *([_reach_cell(reach.get(node.machine_id))] if reach else []),
            plain(node.description),
        )
    return table


def show_paths(found: BrokenPaths) -> None:
    """Print for each cluster the paths that are not up: since when, and why."""
    clusters: dict[ClusterKey, list[Row]] = {}
    for row in found.rows:
        clusters.setdefault(row.broken.node.cluster, []).append(row)
    for key, rows in clusters.items():
        table = Grid(f"Paths of cluster {key.cluster_id}, protocol {key.protocol}", gap=0)
        for name in ("From", "To", "State", "Tries", "Since", "Failed", "Verdict"):
            table.column(name, right=name in ("From", "To", "Tries"))
        table.column("Reason", fold=True)
        for row in rows:
            item = row.broken
            table.row(
                str(item.sender),
                str(item.node.machine_id),
                state_word(item.condition),
                f"{item.path.no_tries}/{item.node.failed_attempts}",
                "?" if row.since is None else text.moment(row.since, found.now),
                text.ago(str(item.path.last_ms), found.now),
                state_word(item.node.condition),
                plain(item.path.reason),
            )
        table.print(console())


def _reach(known: NodeList, view: ClusterView) -> Mapping[int, Reach]:
    """Return how many senders reach each node, if that says more than the states do."""
    if known.seen_by:
        return {}
    found = known.reach(view)
    up = (reach for i, reach in found.items() if view.nodes[i].condition is Condition.UP)
    return found if any(reach.reached < reach.senders for reach in up) else {}


def _reach_cell(reach: Reach | None) -> Text:
    if reach is None:
        return Text()
    return Text(str(reach), "yellow" if reach.reached < reach.senders else "")


def _place(node: Node) -> str:
    """Return the URL, and behind a URL with a name the address to which the name resolves."""
    url = plain(node.url)
    return url if node.host in node.url else f"{url} ({plain(node.host)})"


def _traffic_table(key: ClusterKey, traffic: Sequence[Traffic | ToNode], now: float) -> Grid:
    table = Grid(f"Packets to cluster {key.cluster_id}, protocol {key.protocol}", gap=0)
    first = "From" if isinstance(traffic[0], Traffic) else "Senders"
    for name in (first, "To", "Backlog", "Oldest", *_COUNTERS, "Delivered"):
        table.column(name, right=True)
    for item in traffic:
        who = item.sender if isinstance(item, Traffic) else item.senders
        table.row(str(who), str(item.machine_id), *traffic_cells(item, now))
    return table


def traffic_cells(item: Traffic | ToNode, now: float) -> tuple[str, ...]:
    """Return backlog, age of the oldest packet, the counters, and the time of the last delivery."""
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
