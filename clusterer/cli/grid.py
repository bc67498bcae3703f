"""A table of many rows: small ones as rich lays them out, large ones in a hundredth of the time."""

from __future__ import annotations

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

MOST_ROWS = 200
"""Rows up to which long cells are folded into their column: rich takes 0.3 ms per row."""

_GAP = 2
"""Spaces between the columns of a large table."""


class Grid:
    """Columns and rows; the text of cells is printed as it is."""

    def __init__(self, title: str, gap: int = 1) -> None:
        """``gap``: spaces before each cell of a small table; one more comes after the cell."""
        self._title = title
        self._gap = gap
        self._columns: list[Column] = []
        self._rows: list[tuple[str | Text, ...]] = []

    def column(
        self, name: str, *, right: bool = False, fold: bool = False, least: int | None = None
    ) -> None:
        """Add a column. ``fold``: long cells take several lines; ``least``: least width."""
        self._columns.append(
            Column(
                name,
                justify="right" if right else "left",
                no_wrap=not fold,
                overflow="fold" if fold else "ellipsis",
                min_width=least,
            )
        )

    def row(self, *cells: str | Text) -> None:
        """Add a row with a cell for each column."""
        self._rows.append(cells)

    def print(self, console: Console) -> None:
        """Print the table."""
        if len(self._rows) <= MOST_ROWS:
            console.print(self._folded())
        else:
            console.print(self._lines(), soft_wrap=True)

    def _folded(self) -> Table:
        table = Table(
            *(column.copy() for column in self._columns),
            padding=(0, 1, 0, self._gap),
            title=self._title,
            title_justify="left",
            title_style="bold",
            header_style="bold",
            box=box.SIMPLE_HEAD,
        )
        for cells in self._rows:
            table.add_row(*(cell if isinstance(cell, Text) else Text(cell) for cell in cells))
        return table

    def _lines(self) -> Text:
        """Return all lines; a line that is longer than the terminal continues in the next one."""
        rows = [[str(cell) for cell in cells] for cells in self._rows]
        names = [str(column.header) for column in self._columns]
        widths = [
            max(map(cell_len, {name, *cells}))
            for name, cells in zip(names, zip(*rows, strict=True), strict=True)
        ]
        found = Text(no_wrap=True, end="")
        found.append(f"{self._title}\n\n", "bold").append(f" {self._line(names, widths)}\n", "bold")
        found.append(" " + "─" * (sum(widths) + _GAP * (len(widths) - 1)) + "\n")
        lines, at, spans = [], len(found), []
        for cells, texts in zip(self._rows, rows, strict=True):
            line = f" {self._line(texts, widths)}\n"
            spans += _spans(cells, line, at)
            lines.append(line)
            at += len(line)
        found.append("".join(lines))
        for style, first, last in spans:
            found.stylize(style, first, last)
        return found.append("\n")

    def _line(self, cells: list[str], widths: list[int]) -> str:
        padded = []
        for cell, width, column in zip(cells, widths, self._columns, strict=True):
            padding = " " * (width - cell_len(cell))
            padded.append(padding + cell if column.justify == "right" else cell + padding)
        return (" " * _GAP).join(padded).rstrip()


def _spans(cells: tuple[str | Text, ...], line: str, at: int) -> list[tuple[str, int, int]]:
    """Return the styles of a line that begins at ``at``: style, first and last place."""
    found, after = [], 0
    for cell in cells:
        after = line.index(str(cell), after)
        if isinstance(cell, Text) and cell.style:
            found.append((str(cell.style), at + after, at + after + len(cell)))
        after += len(str(cell))
    return found
