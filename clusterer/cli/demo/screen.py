"""How the demo shows itself: a live table in a terminal, plain lines everywhere else."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TextIO

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from clusterer.cli.demo.instance import PIPE
from clusterer.cli.demo.observed import Observed
from clusterer.cli.demo.stage import Actor
from clusterer.cli.output import COLUMNS, state_word
from clusterer.membership import Condition, Node

_REFRESH_S = 0.1


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

    def refresh(self, observed: Observed, pid_of: Callable[[str], int | None]) -> None:
        """Bring the live table up to date, not too often."""
        if self._live is None or time.monotonic() - self._refreshed < _REFRESH_S:
            return
        self._refreshed = time.monotonic()
        status = Text(f"{self.seconds:5.1f} s  {self._waiting_for}", "dim")
        self._live.update(Group(self._table(observed, pid_of), status), refresh=True)

    def _table(self, observed: Observed, pid_of: Callable[[str], int | None]) -> Table:
        table = Table(header_style="bold")
        for name in ("Node", "Pid", "Address", "State", "Tries", "Own", "Remote"):
            table.add_column(name, no_wrap=True, min_width=6)
        table.caption = f"Own, Remote: checks of ratelimit pipe '{PIPE}' in the last interval"
        for actor in self._actors:
            table.add_row(*_cells(actor, observed, pid_of(actor.name)))
        return table


def _cells(actor: Actor, observed: Observed, pid: int | None) -> list[str | Text]:
    node, instance = observed.nodes.get(actor.machine_id), observed.instances.get(actor.machine_id)
    alive = pid is not None and instance is not None
    return [
        actor.name,
        Text("killed", "red") if pid is None else str(pid),
        f"{actor.host}:{actor.port}",
        "" if node is None else _state(node),
        "" if node is None else f"{node.no_tries}/{node.failed_attempts}",
        str(instance.own) if instance and alive else "-",
        str(sum(instance.remote.values())) if instance and alive else "-",
    ]


def _state(node: Node) -> Text:
    word = state_word(node.condition)
    return word if node.condition is not Condition.DISABLED else word + f" ({node.duration} s)"


def summary(observed: Observed, seconds: float) -> Table:
    """Return what was seen, as a table."""
    table = Table(title="What was seen", title_justify="left", show_header=False)
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
