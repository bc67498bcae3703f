"""``clusterer events``: the changes of nodes."""

from __future__ import annotations

import json
import sys
import textwrap
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import click

from clusterer.cli.options import (
    LINES,
    Number,
    cluster_option,
    node_option,
    parsed_by,
    with_context,
)
from clusterer.cli.text import COLOURS, coloured, columns, stamp
from clusterer.runtime.logs import plain

if TYPE_CHECKING:
    from clusterer.services import Context
    from clusterer.services.admin.events import Since
    from clusterer.store.audit import AuditEvent

SHOWN = 50
"""Number of events without --since and --last."""
SHOWN_BEFORE_FOLLOWING = 10

_ROOMY = 60
"""Least width at which the rest of an event stands below its beginning."""


def _since_of(text: str) -> Since:
    from clusterer.services.admin.events import parse_since

    return parse_since(text)


@click.command()
@click.option("-f", "--follow", is_flag=True, help="Show new events as they come, until Ctrl-C.")
@click.option(
    "--since",
    metavar="TIME",
    callback=parsed_by(_since_of),
    help="Earliest time: an age (90s, 30m, 2h, 1d) or '2026-11-22 23:15'.",
)
@click.option("--last", metavar="N", type=Number(0), help="Number of events to show, the last N.")
@cluster_option("Show events of this cluster_id only.")
@node_option("--node", about="Show events of this machine_id only.")
@click.option("--paths", is_flag=True, help="Show events of paths instead of events of nodes.")
@LINES
@with_context
def events(
    context: Context,
    *,
    follow: bool,
    since: Since | None,
    last: int | None,
    cluster: int | None,
    node: int | None,
    paths: bool,
    as_lines: bool,
) -> None:
    """Show the changes of nodes: time, states, author and reason.

    The oldest event comes first. By default the command shows the last 50. Redis keeps about
    10,000 events per cluster. Times are local, by Redis's clock. --paths shows which senders
    reached a node no longer, or again; Redis keeps as many of these events.
    """
    from clusterer.runtime.stop import stop_on_signals
    from clusterer.services.admin.events import Filter, of_nodes, of_paths

    print_event = _print_json if as_lines else _print
    start = since(context.nodes.now()) if since else 0.0
    wanted = Filter(start, cluster or 0, node or 0)
    history = of_paths(context, wanted) if paths else of_nodes(context, wanted)
    if last is None and not since:
        last = SHOWN_BEFORE_FOLLOWING if follow else SHOWN
    if follow:
        with stop_on_signals(when_unread=True) as stop:
            _print_all(history.past(last), print_event)
            _print_all(history.follow(stop), print_event)
        return
    found = history.past(last)
    _print_all(found, print_event)
    if not found and not as_lines:
        since_when = f" since {stamp(start)}" if start else ""
        click.echo(f"No events{_of(cluster, node)}{since_when}.", err=True)


def _of(cluster: int | None, node: int | None) -> str:
    wanted = [f"node {node}"] * bool(node) + [f"cluster {cluster}"] * bool(cluster)
    return f" of {' in '.join(wanted)}" if wanted else ""


def described(event: AuditEvent) -> str:
    """Return the event as one line, without its time."""
    from clusterer.store.audit import PathEvent

    what = f"node {event.machine_id}"
    if isinstance(event, PathEvent):
        what = f"path {event.sender} -> {event.machine_id}"
    why = f": {event.reason}" if event.reason else ""
    # Reasons come from operators and from the table: they must not steer the terminal.
    return plain(
        f"cluster {event.cluster_id}:{event.protocol} {what} ({event.url}): "
        f"{event.before} -> {event.after}, tries {event.no_tries}/{event.failed_attempts}: "
        f"{event.event} by {event.by}{why}"
    )


def _print_all(found: Iterable[AuditEvent], print_event: Callable[[AuditEvent], None]) -> None:
    for event in found:
        print_event(event)


def _print_json(event: AuditEvent) -> None:
    from clusterer.services.admin.events import as_json

    click.echo(json.dumps(as_json(event)))


def _print(event: AuditEvent) -> None:
    line = f"{stamp(event.at)} {described(event)}"
    if sys.stdout.isatty():
        line = _coloured(_folded(line), event)
    click.echo(line)


def _folded(line: str) -> str:
    width = columns()
    indent = " " * (20 if width >= _ROOMY else 4)
    wrapper = textwrap.TextWrapper(
        width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )
    return wrapper.fill(line)


def _coloured(text: str, event: AuditEvent) -> str:
    plain = f"-> {event.after},"
    word = coloured(event.after, COLOURS.get(event.after))
    return text.replace(plain, f"-> {word},", 1)
