"""Tables of many rows: the same text as small ones, and no line is cut."""

from __future__ import annotations

import io

import pytest
from rich.console import Console
from rich.text import Text

from clusterer.cli import grid
from clusterer.cli.grid import Grid


def made(rows: int, description: str = "a node") -> Grid:
    found = Grid("Cluster 1", gap=1)
    found.column("Node", right=True)
    found.column("State")
    found.column("Description", fold=True)
    for number in range(1, rows + 1):
        found.row(str(number), Text("up", "green"), description)
    return found


def printed(table: Grid, *, terminal: bool = False) -> str:
    console = Console(file=io.StringIO(), width=80, force_terminal=terminal, highlight=False)
    table.print(console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def words(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines() if line.split()]


def test_grid_of_many_rows_has_the_words_of_a_small_one(monkeypatch: pytest.MonkeyPatch) -> None:
    small = printed(made(grid.MOST_ROWS))
    monkeypatch.setattr(grid, "MOST_ROWS", 1)
    large = printed(made(200))
    rule = [["─" * len(line[0])] if line[0][0] == "─" else line for line in words(small)]
    assert [line for line in words(large) if line[0][0] != "─"] == [
        line for line in rule if line[0][0] != "─"
    ]
    lines = large.splitlines()
    assert lines[0] == "Cluster 1"
    assert lines[2] == " Node  State  Description"
    assert {line.index("up") for line in lines[4:204]} == {lines[2].index("State")}
    assert lines[4] == "    1  up     a node"


def test_grid_of_many_rows_keeps_long_cells_whole() -> None:
    long = "very " * 30 + "long [bold]text[/]"
    text = printed(made(grid.MOST_ROWS + 1, long))
    assert text.count(long) == grid.MOST_ROWS + 1


def test_grid_of_many_rows_has_colours_in_a_terminal_only() -> None:
    table = made(grid.MOST_ROWS + 1)
    assert "\x1b[32mup" in printed(table, terminal=True)
    assert "\x1b" not in printed(table)
