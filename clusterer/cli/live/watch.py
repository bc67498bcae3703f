"""The screen and the lines of ``clusterer watch``: one machine_id in all its clusters."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing

import click
from rich.text import Text

from clusterer.cli import output, text
from clusterer.cli.events import described
from clusterer.cli.live import screen, words
from clusterer.errors import StateUnavailable, UnknownNode
from clusterer.runtime.logs import plain
from clusterer.runtime.stop import stop_on_signals
from clusterer.services import Context
from clusterer.services.live import NodeEvents, Reader, Row, Snapshot, changes, node_pairs, rows
from clusterer.settings import Settings
from clusterer.store import ClusterKey
from clusterer.store.audit import AuditEvent

_OVER = 4
"""Snapshots over which rates are taken."""

_MOST_PATHS = 10
"""Senders that do not reach the node, in one table."""


def run(settings: Settings, machine_id: int, cluster_id: int | None, interval_s: float) -> None:
    """Show one node: on a screen until ``q``, in a pipe one line per change until a signal."""
    console = output.console()
    with closing(Context(settings)) as context:
        watched = Watched(context, machine_id, cluster_id)
        if screen.is_for(console):
            screen.show(console, interval_s, watched.look, watched.page)
        else:
            _print_lines(watched, interval_s)


class Watched:
    """The rows and events of one machine_id as of the last look."""

    def __init__(self, context: Context, machine_id: int, cluster_id: int | None) -> None:
        self._context = context
        self._machine_id = machine_id
        self._cluster_id = cluster_id
        self._reader = Reader(context)
        self._seen: deque[Snapshot] = deque(maxlen=_OVER)
        self._events = NodeEvents(context, machine_id)
        self.rows: Mapping[ClusterKey, Row] = {}

    def look(self) -> list[AuditEvent]:
        """Look again; return the new events.

        Raises `StateUnavailable`, and at the first look `UnknownNode` without such a node.
        """
        first = not self._seen
        snapshot = self._reader.read()
        found = rows(self._seen[0] if self._seen else None, snapshot)
        own = {
            c.key: node_pairs.added(self._context, snapshot, row)
            for c in found
            for row in c.rows
            if row.node.machine_id == self._machine_id
            and self._cluster_id in (None, c.key.cluster_id)
        }
        if first and not own:
            raise UnknownNode(self._nowhere())
        events = self._events.refresh({key.cluster_id for key in {**self.rows, **own}})
        self._seen.append(snapshot)
        self.rows = own
        return events

    @property
    def now(self) -> float:
        """Redis TIME of the last look, UNIX seconds."""
        return self._seen[-1].now

    @property
    def stalled(self) -> str:
        """Reason why no process updated states at the last look; empty if one did."""
        return self._seen[-1].stalled

    def page(self, width: int, _height: int) -> screen.Page:
        """Return the page."""
        title = f"Node {self._machine_id} at {text.stamp(self.now)}"
        head = [*words.stalled(self.stalled), Text()]
        body = [line for key, row in self.rows.items() for line in _node_lines(key, row, self.now)]
        if not self.rows:
            body = [Text(f"Node {self._machine_id} is in no cluster now.", "red"), Text()]
        body.append(Text("Last events, newest first", "bold"))
        for event in reversed(self._events.last):
            body += _event_lines(event, self.now, width)
        if not self._events.last:
            body.append(Text("  none"))
        return screen.Page(title, head, body)

    def _nowhere(self) -> str:
        where = f"cluster {self._cluster_id} has" if self._cluster_id else "no cluster has"
        number = f"no node {self._machine_id}" if self._cluster_id else f"a node {self._machine_id}"
        return f"{where} {number}; `clusterer list` shows all nodes"


def _node_lines(key: ClusterKey, row: Row, now: float) -> Iterator[Text]:
    node = row.node
    title = f"Cluster {key.cluster_id}, protocol {key.protocol}: {node.url} {node.description}"
    yield Text(plain(title), "bold")
    state = Text("  State    ").append_text(output.state_word(node.condition))
    if row.enabled_in_s is not None:
        state.append(f", enabled again in {row.enabled_in_s} s")
    if row.partly_reached:
        state.append(f", reached by {row.reach} senders", "yellow")
    yield state
    yield Text(f"  Tries    {_tries(row, now)}")
    yield Text(
        f"  Packets  {text.rate(row.in_per_s)} per second to the node, "
        f"{text.rate(row.out_per_s)} from it"
    )
    yield Text()
    yield from _path_lines(row, now)
    yield from _flow_lines(row, now)
    yield from _last_seen_lines(row)


def _tries(row: Row, now: float) -> str:
    node = row.node
    found = f"{node.no_tries} of {node.failed_attempts} that disable the node"
    if node.last_attempt:
        found += f"; last failure {text.age(max(0.0, now - node.last_attempt))} ago"
    return found


def _path_lines(row: Row, now: float) -> list[Text]:
    """Return the senders that do not reach a node that is up; nothing if all do."""
    if not row.partly_reached:
        return []
    names = ("Not reached from", "State", "Tries", "Failed", "Reason")
    cells = [
        [
            Text(str(item.sender)),
            output.state_word(item.condition),
            Text(f"{item.path.no_tries}/{row.node.failed_attempts}"),
            Text(text.ago(str(item.path.last_ms), now)),
            Text(plain(item.path.reason)),
        ]
        for item in row.broken[:_MOST_PATHS]
    ]
    more = len(row.broken) - len(cells)
    return [
        *words.columns(names, (True, False, True, True, False), cells, "  "),
        *(
            [Text(f"  and {more} more: `clusterer paths --node {row.node.machine_id}`")]
            * bool(more)
        ),
        Text(),
    ]


def _flow_lines(row: Row, now: float) -> list[Text]:
    if not row.flows:
        return [Text("  No sender has sent packets to the node."), Text()]
    names = ("From", "Backlog", "Oldest", "Sent", "Failed", "Skipped", "Lost", "Last delivered")
    cells = []
    for item in row.flows:
        backlog, *others = map(Text, output.traffic_cells(item, now))
        backlog.style = "yellow" if item.backlog else ""
        cells.append([Text(str(item.sender)), backlog, *others])
    return [*words.columns(names, [True] * len(names), cells, "  "), Text()]


def _last_seen_lines(row: Row) -> list[Text]:
    if not row.last_seen:
        return [Text("  No instance has a module registered for this cluster."), Text()]
    names = ("Seen by", "Module", "Last seen", "Timeout")
    cells = [
        [
            Text(str(item.receiver)),
            Text(plain(item.module)),
            Text(f"{text.age(item.age_s)} ago")
            if item.muted_s is None
            else Text(f"muted for {item.muted_s:.0f} s", "red"),
            Text(f"{item.timeout_s:g} s" if item.timeout_s else "none"),
        ]
        for item in row.last_seen
    ]
    return [*words.columns(names, (True, False, True, True), cells, "  "), Text()]


def _event_lines(event: AuditEvent, now: float, width: int) -> list[Text]:
    """Return time and states, and below them the cause."""
    line = Text(f"  {text.moment(event.at, now)} cluster {event.cluster_id}: {event.before} -> ")
    line.append(event.after, text.COLOURS.get(event.after, ""))
    line.append(f", tries {event.no_tries}/{event.failed_attempts}: ")
    why = f"{event.event} by {event.by}" + (f": {event.reason}" if event.reason else "")
    if line.cell_len + len(why) <= width:
        return [line.append(plain(why))]
    return [line, Text(" " * 11 + plain(why))]


def _print_lines(watched: Watched, interval_s: float) -> None:
    """Print the state, then a line per change, until a signal."""
    with stop_on_signals(when_unread=True) as stop:
        watched.look()
        _print_stalled("", watched)
        for key, row in watched.rows.items():
            _print_change(watched.now, key, row, _status(row))
        away = False
        while not stop.wait(interval_s):
            before, stalled = watched.rows, watched.stalled
            try:
                events = watched.look()
            except StateUnavailable as error:
                if not away:
                    click.echo(f"clusterer: waiting for Redis: {error}", err=True)
                away = True
                continue
            if away:
                click.echo("clusterer: Redis is back", err=True)
            away = False
            _print_stalled(stalled, watched)
            _print_changes(watched, before, events)


def _print_stalled(before: str, watched: Watched) -> None:
    """Print a line if the updates of states have stopped or resumed since the last look."""
    if watched.stalled != before:
        lines = words.stalled(watched.stalled) or [Text("States are updated again.")]
        click.echo(f"clusterer: {lines[0]}", err=True)


def _print_changes(
    watched: Watched, before: Mapping[ClusterKey, Row], events: Sequence[AuditEvent]
) -> None:
    for event in events:
        click.echo(f"{text.stamp(event.at)} {described(event)}")
    for key, row in watched.rows.items():
        for change in changes(before.get(key), row):
            _print_change(watched.now, key, row, change)


def _status(row: Row) -> str:
    node = row.node
    backlog = "?" if row.backlog is None else row.backlog
    return (
        f"{node.condition.value}, tries {node.no_tries}/{node.failed_attempts}, backlog {backlog}"
    )


def _print_change(at: float, key: ClusterKey, row: Row, change: str) -> None:
    node = row.node
    where = f"cluster {key} node {node.machine_id} ({plain(node.url)})"
    click.echo(f"{text.stamp(at)} {where}: {change}")
