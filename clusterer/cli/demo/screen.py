"""Prints the demo: a live table in a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TextIO

from rich import box
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from clusterer.cli.demo.instance import INTERVAL_S, PIPE
from clusterer.cli.demo.observations import Observations
from clusterer.cli.demo.processes import DemoNode
from clusterer.cli.output import COLUMNS, state_cells

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
    """Prints steps as they happen, and in a terminal a table of the present below them."""

    def __init__(self, stream: TextIO, *, live: bool) -> None:
        width = None if stream.isatty() else COLUMNS
        self._console = Console(file=stream, width=width, highlight=False)
        usable = live and self._console.is_terminal and not self._console.is_dumb_terminal
        # No thread of its own: children are started while it shows, and forks dislike threads.
        self._live = Live(console=self._console, auto_refresh=False) if usable else None
        self._started = time.monotonic()
        self._refreshed = -_REFRESH_S

    @property
    def seconds(self) -> float:
        """Time since the demo began."""
        return time.monotonic() - self._started

    def showing(self) -> AbstractContextManager[Any]:
        """Return the context in which the live table is shown."""
        return self._live or nullcontext()

    def step(self, text: str) -> None:
        """Print what has happened, with the time."""
        self.write(f"[{self.seconds:5.1f} s] {text}")

    def write(self, text: str = "") -> None:
        """Print a line."""
        self._console.print(Text(text), soft_wrap=True)

    def refresh(self, table: Table, awaited: str) -> None:
        """Update the live table, at most ten times a second; without ``awaited`` at once."""
        if self._live is None or (awaited and self.seconds - self._refreshed < _REFRESH_S):
            return
        self._refreshed = self.seconds
        waiting = f"  waiting until {awaited}" if awaited else ""
        status = Text(f"[{self.seconds:5.1f} s]{waiting}", "dim")
        self._live.update(Group(table, status), refresh=True)

    def conclude(self, observed: Observations) -> None:
        """Print the summary, and after a failure the last log lines of the processes."""
        self.write()
        self._console.print(summary(observed, self.seconds))
        if observed.complete:
            self.write("The demo observed all steps. Next: `clusterer up`, `clusterer list`.")
            return
        self.write(f"FAILED: {observed.failure or 'the demo did not observe all steps'}")
        for name, lines in observed.logs.items():
            for line in lines:
                self.write(f"  {name}: {line}")


def live_table(observed: Observations, pids: Mapping[DemoNode, int | None], now: float) -> Table:
    """Return the instances as they are ``now`` (UNIX time); a killed one has no pid."""
    table = Table(header_style="bold", box=box.SIMPLE_HEAD)
    for name, width in _COLUMNS.items():
        table.add_column(name, no_wrap=True, min_width=width)
    for node, pid in pids.items():
        report = observed.reports.get(node.machine_id) if pid is not None else None
        present = observed.nodes.get(node.machine_id)
        table.add_row(
            node.name,
            Text("killed", "red") if pid is None else str(pid),
            f"{node.host}:{node.port}",
            *(state_cells(present, now) if present else ("", "", "")),
            str(report.own) if report else "-",
            str(sum(report.remote.values())) if report else "-",
        )
    table.caption = f"Own and remote: checks of ratelimit pipe '{PIPE}' in {INTERVAL_S:g} s"
    table.caption_justify = "left"
    return table


def summary(observed: Observations, seconds: float) -> Table:
    """Return the observations as a table."""
    table = Table(title="Observations", title_justify="left", show_header=False, box=box.SIMPLE)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    count, median = len(observed.latencies_ms), observed.latency_ms
    took = "no packet arrived" if median is None else f"{median:.1f} ms (median of {count} packets)"
    yes = {True: Text("yes", "green"), False: Text("no", "red")}
    table.add_row("Ratelimit counters of A in B's pipe", yes[(1, 2) in observed.replicated])
    table.add_row("Ratelimit counters of B in A's pipe", yes[(2, 1) in observed.replicated])
    table.add_row("B's states", " → ".join(state.value for state in observed.states))
    table.add_row("From send_to to the peer's callback", took)
    table.add_row("Packets delivered", str(observed.packets_delivered))
    table.add_row("Time", f"{seconds:.1f} s")
    return table
