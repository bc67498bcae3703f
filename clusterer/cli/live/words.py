"""Words and columns of both live views."""

from __future__ import annotations

from collections.abc import Sequence

from rich.text import Text

from clusterer.cli.output import state_word
from clusterer.cli.text import age
from clusterer.services.live import LastSeen, Row

GAP = " "


def last_seen_words(item: LastSeen | None) -> Text:
    """Return the age of the node's last packet, or that the node is muted."""
    if item is None:
        return Text("-")
    if item.muted_s is not None:
        return Text("muted", "red")
    return Text(age(item.age_s))


def state(row: Row) -> Text:
    """Return the state and, if a sender does not reach a node that is up, how many do."""
    found = state_word(row.node.condition)
    if row.partly_reached and row.reach:
        found.append(f" {row.reach.reached}/{row.reach.senders}", "yellow")
    return found


def state_text(row: Row) -> str:
    """Return the text of `state`."""
    reach = f" {row.reach.reached}/{row.reach.senders}" if row.partly_reached and row.reach else ""
    return f"{row.node.condition.value}{reach}"


def stalled(why: str) -> list[Text]:
    """Return the line that warns of states that no process updates; none if ``why`` is empty."""
    return (
        [Text(f"States are not updated: {why}. See `clusterer doctor`.", "bold red")] if why else []
    )


def columns(
    names: Sequence[str], right: Sequence[bool], rows: Sequence[Sequence[Text]], indent: str = ""
) -> list[Text]:
    """Return a heading and the rows as lines; each column is as wide as its widest cell."""
    cells = [[Text(name, "bold") for name in names], *rows]
    widths = [max(row[at].cell_len for row in cells) for at in range(len(names))]
    return [line(row, widths, right, indent, gap="  ") for row in cells]


def line(
    cells: Sequence[Text],
    widths: Sequence[int],
    right: Sequence[bool],
    indent: str = "",
    *,
    gap: str = GAP,
) -> Text:
    """Return cells side by side; cells that are too long end in an ellipsis."""
    found = Text(indent, no_wrap=True)
    for at, (cell, width, to_the_right) in enumerate(zip(cells, widths, right, strict=True)):
        part = cell.copy()
        part.truncate(width, overflow="ellipsis")
        padding = width - part.cell_len
        if to_the_right:
            part.pad_left(padding)
        else:
            part.pad_right(padding)
        found.append(gap if at else "").append_text(part)
    found.rstrip()
    return found
