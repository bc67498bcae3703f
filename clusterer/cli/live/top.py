"""``clusterer top``: all nodes by cluster, as they are now."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import closing

import click
from rich.text import Text

from clusterer.cli import output
from clusterer.cli.live import screen, words
from clusterer.cli.options import Seconds, with_settings
from clusterer.runtime.logs import plain
from clusterer.services import Context
from clusterer.services.live import ClusterRows, Reader, Row, Snapshot, rows
from clusterer.settings import Settings

INTERVAL = Seconds(0.2, 3600)

_OVER = 4
"""Snapshots over which rates are taken: one alone jumps as packets happen to fall into it."""

_NAMES = ("Node", "Address", "State", "Tries", "Back in", "Backlog", "In/s", "Out/s")
_LEAST = (4, 15, 8, 5, 7, 7, 6, 6)
_RIGHT = (True, False, False, True, True, True, True, True)
_ADDRESS = 1

_OLD_S = 1.0
"""Age from which on it is shown how old a backlog is; below, packets are just on their way."""

_AROUND = 4
"""Lines around head and body: title, legend, position."""

_LEGEND = "In/s, Out/s: packets our workers deliver per second to the node and from it."
_EMPTY = "No clusters. Fill the table, then run `clusterer reload`."


@click.command()
@click.option("--interval", metavar="S", type=INTERVAL, default=1.0, help="Seconds between looks.")
@click.option("--once", is_flag=True, help="Print it once, as in a pipe.")
@with_settings()
def top(settings: Settings, *, interval: float, once: bool) -> None:
    """Show all nodes live: state, backlog, traffic.

    Refreshes until q; arrow keys, space and b scroll. In a pipe, or with --once, it looks for
    one interval, prints what it saw and ends.
    """
    console = output.console()
    with closing(Context(settings)) as context:
        reader = Reader(context)
        seen: deque[Snapshot] = deque(maxlen=_OVER)
        if screen.is_for(console) and not once:
            screen.show(
                console,
                interval,
                lambda: seen.append(reader.read()),
                lambda width, height: page(
                    seen[0], seen[-1], width, settings.server_id, height=height
                ),
            )
            return
        before = reader.read()
        time.sleep(interval)
        found = page(before, reader.read(), output.COLUMNS, settings.server_id, cut=False)
    for line in (Text(found.title), *found.head, *found.body, *found.foot):
        console.print(line, soft_wrap=True)


def page(
    before: Snapshot,
    after: Snapshot,
    width: int,
    own: int,
    *,
    height: int | None = None,
    cut: bool = True,
) -> screen.Page:
    """Return what is shown; ``own`` is the own machine_id, ``cut`` shortens addresses.

    Nodes in trouble come first if not all fit into ``height``.
    """
    clusters = rows(before if before is not after else None, after)
    title = f"Nodes at {words.stamp(after.now)}"
    if not clusters:
        return screen.Page(title, [Text()], [Text(_EMPTY)])
    modules = sorted({name for c in clusters for row in c.rows for name in row.by_module()})
    layout = _Layout([row for c in clusters for row in c.rows], modules, width, own, cut=cut)
    head = [_summary(clusters), *words.stalled(after.stalled), Text(), layout.heading()]
    body = [line for cluster in clusters for line in layout.lines(cluster)]
    if height is not None and len(body) > height - len(head) - _AROUND:
        body = [line for cluster in _troubled_first(clusters) for line in layout.lines(cluster)]
    legend = [Text(_LEGEND, "dim")]
    if modules:
        legend.append(Text(f"{', '.join(modules)}: how long ago an instance heard it", "dim"))
        legend[-1].append(" (silent: its packets are dropped)." if _silent(clusters) else ".")
    return screen.Page(title, head, body, legend)


def _troubled_first(clusters: Sequence[ClusterRows]) -> Iterator[ClusterRows]:
    for troubled in (True, False):
        for cluster in clusters:
            if (part := cluster.only(troubled=troubled)).rows:
                yield part


def _silent(clusters: Sequence[ClusterRows]) -> bool:
    found = (item for c in clusters for row in c.rows for item in row.heard)
    return any(item.silenced_s is not None for item in found)


def _summary(clusters: Sequence[ClusterRows]) -> Text:
    found = Text(f"{sum(len(c.rows) for c in clusters)} nodes:")
    return found.append_text(_counts(clusters))


def _counts(clusters: Sequence[ClusterRows]) -> Text:
    found = Text()
    for condition in output.STYLES:
        count = sum(cluster.count(condition) for cluster in clusters)
        if count:
            found.append("," if found else "").append(f" {count} ")
            found.append_text(output.state_word(condition))
    return found


class _Layout:
    """Columns as wide as needed; modules get columns if there is room, else a line per node."""

    def __init__(
        self, found: Sequence[Row], modules: Sequence[str], width: int, own: int, *, cut: bool
    ) -> None:
        self._own = own
        cells = [self._cells(row) for row in found]
        widths = [
            max(least, *(row[at].cell_len for row in cells)) for at, least in enumerate(_LEAST)
        ]
        room = width - sum(widths) - len(widths) + 1
        heard = [max(len(name), 6) for name in modules]
        self._modules = modules
        self._beside = sum(heard) + len(heard) <= room
        if cut and room < 0:
            widths[_ADDRESS] = max(_LEAST[_ADDRESS], widths[_ADDRESS] + room)
        self._widths = [*widths, *heard] if self._beside else widths
        self._right = [*_RIGHT, *(True for _ in heard)] if self._beside else list(_RIGHT)

    def heading(self) -> Text:
        names = [*_NAMES, *self._modules] if self._beside else _NAMES
        return self._line([Text(name, "bold") for name in names])

    def lines(self, cluster: ClusterRows) -> list[Text]:
        found = Text(f"Cluster {cluster.key.cluster_id}, protocol {cluster.key.protocol}:", "bold")
        found.append_text(_counts([cluster]))
        return [found, *(line for row in cluster.rows for line in self._node(row))]

    def _node(self, row: Row) -> list[Text]:
        heard = row.by_module()
        if self._beside:
            modules = [words.heard_words(heard.get(name)) for name in self._modules]
            return [self._line([*self._cells(row), *modules])]
        if not heard:
            return [self._line(self._cells(row))]
        parts = [Text(f"{name} ").append_text(words.heard_words(heard[name])) for name in heard]
        return [self._line(self._cells(row)), Text("     ").append_text(Text(", ").join(parts))]

    def _line(self, cells: Sequence[Text]) -> Text:
        return words.line(cells, self._widths, self._right)

    def _cells(self, row: Row) -> list[Text]:
        node = row.node
        own = "*" if node.machine_id == self._own else ""
        return [
            Text(f"{own}{node.machine_id}"),
            Text(plain(node.url.removeprefix(f"{node.protocol}:"))),
            output.state_word(node.condition),
            Text(f"{node.no_tries}/{node.failed_attempts}"),
            Text("" if row.back_in_s is None else f"{row.back_in_s} s"),
            Text(_backlog(row), "yellow" if row.backlog else ""),
            Text(words.rate(row.in_per_s)),
            Text(words.rate(row.out_per_s)),
        ]


def _backlog(row: Row) -> str:
    """Return how many packets wait and, unless they are just on their way, for how long."""
    count = "?" if row.backlog is None else str(row.backlog)
    old = row.oldest_s is not None and row.oldest_s >= _OLD_S
    return f"{count}, {words.age(row.oldest_s or 0.0)}" if old else count
