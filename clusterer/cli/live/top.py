"""The screen of ``clusterer top``: all nodes by cluster."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from functools import partial

from rich.cells import cell_len
from rich.text import Text

from clusterer.cli import output, text
from clusterer.cli.live import screen, words
from clusterer.membership import Condition
from clusterer.runtime.logs import plain
from clusterer.services import Context
from clusterer.services.live import ClusterRows, Reader, Row, Snapshot, rows
from clusterer.settings import Settings

_OVER = 4
"""Snapshots over which a rate is computed: with fewer, the rate jumps."""

_NAMES = ("Node", "Address", "State", "Tries", "Back in", "Backlog", "In/s", "Out/s")
_LEAST = (4, 15, 8, 5, 7, 7, 6, 6)
_RIGHT = (True, False, False, True, True, True, True, True)
_ADDRESS, _STATE, _BACKLOG = 1, 2, 5

_OLD_S = 1.0
"""Least age of a backlog that is shown."""

_AROUND = 4
"""Lines around head and body: title, legend, position."""

_LEGEND = "In/s, Out/s: packets per second that workers deliver to and from the node."
_EMPTY = "No clusters. Fill the table, then run `clusterer reload`."


def run(settings: Settings, interval_s: float, *, once: bool) -> None:
    """Show all nodes: on a screen until ``q``, or once, after one interval."""
    console = output.console()
    with closing(Context(settings)) as context:
        reader = Reader(context)
        seen: deque[Snapshot] = deque(maxlen=_OVER)
        if screen.is_for(console) and not once:
            screen.show(
                console,
                interval_s,
                lambda: seen.append(reader.read()),
                lambda width, height: page(
                    seen[0], seen[-1], width, settings.server_id, height=height
                ),
            )
            return
        before = reader.read()
        time.sleep(interval_s)
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
    """Return the page; ``own`` is the own machine_id, ``cut`` shortens addresses.

    Nodes with faults come first if not all fit into ``height``.
    """
    clusters = rows(before if before is not after else None, after)
    title = f"Nodes at {text.stamp(after.now)}"
    if not clusters:
        return screen.Page(title, [Text()], [Text(_EMPTY)])
    modules = sorted({name for c in clusters for row in c.rows for name in row.by_module()})
    layout = _Layout([row for c in clusters for row in c.rows], modules, width, own, cut=cut)
    head = [_summary(clusters), *words.stalled(after.stalled), Text(), layout.heading()]
    body = [line for cluster in clusters for line in layout.lines(cluster)]
    if height is not None and len(body) > height - len(head) - _AROUND:
        body = [line for cluster in _troubled_first(clusters) for line in layout.lines(cluster)]
    lines = screen.Lines(body)
    legend = [Text(_LEGEND, "dim")]
    if any(row.partly_reached for c in clusters for row in c.rows):
        legend.append(Text("up 2/3: 2 of 3 senders reach the node; see `clusterer paths`.", "dim"))
    if modules:
        legend.append(Text(f"{', '.join(modules)}: time since an instance saw the node", "dim"))
        legend[-1].append(
            " (muted: the instance drops the packets)." if _has_muted(clusters) else "."
        )
    return screen.Page(title, head, lines, legend)


def _troubled_first(clusters: Sequence[ClusterRows]) -> Iterator[ClusterRows]:
    for troubled in (True, False):
        for cluster in clusters:
            if (part := cluster.only(troubled=troubled)).rows:
                yield part


def _has_muted(clusters: Sequence[ClusterRows]) -> bool:
    found = (item for c in clusters for row in c.rows for item in row.last_seen)
    return any(item.muted_s is not None for item in found)


def _summary(clusters: Sequence[ClusterRows]) -> Text:
    found = Text(f"{sum(len(c.rows) for c in clusters)} nodes:")
    return found.append_text(_counts(clusters))


def _counts(clusters: Sequence[ClusterRows]) -> Text:
    found = Text()
    for condition in map(Condition, text.COLOURS):
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
        columns = list(zip(*map(self._plain, found), strict=True)) or [()] * len(_LEAST)
        widths = [
            max(least, *map(cell_len, {*column}))
            for least, column in zip(_LEAST, columns, strict=True)
        ]
        room = width - sum(widths) - len(widths) + 1
        last_seen = [max(len(name), 6) for name in modules]
        self._modules = modules
        self._beside = sum(last_seen) + len(last_seen) <= room
        if cut and room < 0:
            widths[_ADDRESS] = max(_LEAST[_ADDRESS], widths[_ADDRESS] + room)
        self._widths = [*widths, *last_seen] if self._beside else widths
        self._right = [*_RIGHT, *(True for _ in last_seen)] if self._beside else list(_RIGHT)

    def heading(self) -> Text:
        names = [*_NAMES, *self._modules] if self._beside else _NAMES
        return self._line([Text(name, "bold") for name in names])

    def lines(self, cluster: ClusterRows) -> Iterator[Callable[[], Text]]:
        """Yield what makes each line: most of many lines are never on the screen."""
        yield partial(self._title, cluster)
        for row in cluster.rows:
            yield partial(self._node, row)
            if not self._beside and row.last_seen:
                yield partial(self._last_seen, row)

    def _title(self, cluster: ClusterRows) -> Text:
        found = Text(f"Cluster {cluster.key.cluster_id}, protocol {cluster.key.protocol}:", "bold")
        return found.append_text(_counts([cluster]))

    def _node(self, row: Row) -> Text:
        if not self._beside:
            return self._line(self._cells(row))
        last_seen = row.by_module()
        modules = [words.last_seen_words(last_seen.get(name)) for name in self._modules]
        return self._line([*self._cells(row), *modules])

    def _last_seen(self, row: Row) -> Text:
        parts = [
            Text(f"{name} ").append_text(words.last_seen_words(item))
            for name, item in row.by_module().items()
        ]
        return Text("     ").append_text(Text(", ").join(parts))

    def _line(self, cells: Sequence[Text]) -> Text:
        return words.line(cells, self._widths, self._right)

    def _plain(self, row: Row) -> tuple[str, ...]:
        """Return the text of each cell."""
        node = row.node
        own = "*" if node.machine_id == self._own else ""
        return (
            f"{own}{node.machine_id}",
            plain(node.url.removeprefix(f"{node.protocol}:")),
            words.state_text(row),
            f"{node.no_tries}/{node.failed_attempts}",
            "" if row.enabled_in_s is None else f"{row.enabled_in_s} s",
            _backlog(row),
            text.rate(row.in_per_s),
            text.rate(row.out_per_s),
        )

    def _cells(self, row: Row) -> list[Text]:
        found = [Text(cell) for cell in self._plain(row)]
        found[_STATE] = words.state(row)
        found[_BACKLOG].style = "yellow" if row.backlog else ""
        return found


def _backlog(row: Row) -> str:
    """Return the backlog and, from `_OLD_S` on, the age of its oldest packet."""
    count = "?" if row.backlog is None else str(row.backlog)
    old = row.oldest_s is not None and row.oldest_s >= _OLD_S
    return f"{count}, {text.age(row.oldest_s or 0.0)}" if old else count
