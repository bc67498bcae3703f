"""How the demo shows itself: a live table in a terminal, plain lines everywhere else."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TextIO

from rich import box
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from clusterer.cli.demo.instance import INTERVAL_S, PIPE
from clusterer.cli.demo.observed import Observed
from clusterer.cli.demo.stage import Actor
from clusterer.cli.output import COLUMNS, state_word
from clusterer.membership import Condition, Node

_REFRESH_S = 0.1
_COLUMNS = {
    "Node": 4,
    "Pid": 6,
    "Address": 15,
    "State": 8,
    "Tries": 5,
    "Back in": 7,
    "Own": 3,
    "Remote": 6,
}
"""Headings and widths; together with their margins less than 80."""


class Screen:
    """Prints steps as they happen, below them (in a terminal) what is the case now."""

    def __init__(self, stream: TextIO, actors: tuple[Actor, Actor], *, live: bool) -> None:
        self._console = Console(
            file=stream, width=None if stream.isatty() else COLUMNS, highlight=False
        )
        usable = live and self._console.is_terminal and not self._console.is_dumb_terminal
        # No thread of its own: children are started while it shows, and forks dislike threads.
        self._live = Live(console=self._console, auto_refresh=False) if usable else None
        self._actors = actors
        self._started = self._refreshed = time.monotonic()
        self._waiting_for = ""

    @property
    def seconds(self) -> float:
        """Since the demo began."""
        return time.monotonic() - self._started

    def showing(self) -> AbstractContextManager[Any]:
        """Return the context in which the live table is there."""
        return self._live or nullcontext()

    def step(self, text: str) -> None:
        """Say what has happened."""
        self._console.print(Text(f"[{self.seconds:5.1f} s] {text}"), soft_wrap=True)

    def write(self, text: str | Table = "") -> None:
        """Print something without a time."""
        if isinstance(text, str):
            self._console.print(Text(text), soft_wrap=True)
        else:
            self._console.print(text)

    def wait_for(self, what: str) -> None:
        """Say, in the live part only, what is being waited for."""
        self._waiting_for = what

    def refresh(
        self,
        observed: Observed,
        pid_of: Callable[[str], int | None],
        *,
        now: float,
        last: bool = False,
    ) -> None:
        """Bring the live table up to date, not too often except for the ``last`` time.

        ``now`` is UNIX time, in seconds.
        """
        if self._live is None:
            return
        if not last and time.monotonic() - self._refreshed < _REFRESH_S:
            return
        self._refreshed = time.monotonic()
        waiting = "" if last else f"  waiting until {self._waiting_for}"
        status = Text(f"[{self.seconds:5.1f} s]{waiting}", "dim")
        table = self._table(observed, pid_of, now)
        self._live.update(Group(table, status), refresh=True)

    def _table(self, observed: Observed, pid_of: Callable[[str], int | None], now: float) -> Table:
        table = Table(header_style="bold", box=box.SIMPLE_HEAD)
        for name, width in _COLUMNS.items():
            table.add_column(name, no_wrap=True, min_width=width)
        for actor in self._actors:
            table.add_row(*_cells(actor, observed, pid_of(actor.name), now))
        table.caption = f"Own and remote: checks of ratelimit pipe '{PIPE}' in {INTERVAL_S:g} s"
        table.caption_justify = "left"
        return table


def _cells(actor: Actor, observed: Observed, pid: int | None, now: float) -> list[str | Text]:
    instance = observed.instances.get(actor.machine_id) if pid is not None else None
    return [
        actor.name,
        Text("killed", "red") if pid is None else str(pid),
        f"{actor.host}:{actor.port}",
        *_node_cells(observed.nodes.get(actor.machine_id), now),
        str(instance.own) if instance else "-",
        str(sum(instance.remote.values())) if instance else "-",
    ]


def _node_cells(node: Node | None, now: float) -> list[str | Text]:
    if node is None:
        return ["", "", ""]
    disabled = node.condition is Condition.DISABLED
    return [
        state_word(node.condition),
        f"{node.no_tries}/{node.failed_attempts}",
        f"{max(0, node.enabled_at - now):.0f} s" if disabled else "",
    ]


def summary(observed: Observed, seconds: float) -> Table:
    """Return what was seen, as a table."""
    table = Table(title="What was seen", title_justify="left", show_header=False, box=box.SIMPLE)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    latency = observed.latency_ms
    yes = {True: Text("yes", "green"), False: Text("no", "red")}
    table.add_row("Ratelimit counters of A in B's pipe", yes[(1, 2) in observed.replicated])
    table.add_row("Ratelimit counters of B in A's pipe", yes[(2, 1) in observed.replicated])
    table.add_row("B's states", " → ".join(state.value for state in observed.states))
    table.add_row(
        "From send_to to the peer's callback",
        "nothing arrived"
        if latency is None
        else f"{latency:.1f} ms (median of {len(observed.latencies_ms)} packets)",
    )
    table.add_row("Packets delivered", str(observed.packets_delivered))
    table.add_row("Time", f"{seconds:.1f} s")
    return table
