"""Numbers, times and columns as both live views write them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from rich.text import Text

from clusterer.services.live import Heard

GAP = " "


def stamp(at: float) -> str:
    """Return the local date and time of a UNIX time."""
    return datetime.fromtimestamp(at).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def moment(at: float, now: float) -> str:
    """Return the local time of day, and of another day than today's its date."""
    full = stamp(at)
    return full[11:] if full[:10] == stamp(now)[:10] else full


def rate(value: float | None) -> str:
    """Return packets per second in at most 6 characters; ``-`` if there is no such thing."""
    if value is None:
        return "-"
    if value < 99.95:
        return f"{value:.1f}"
    return f"{value:.0f}" if value < 99_999.5 else f"{value / 1000:.0f}k"


def age(seconds: float) -> str:
    """Return a time span in at most 6 characters."""
    for limit, unit, word in ((60, 1, "s"), (3600, 60, "min"), (172_800, 3600, "h")):
        if seconds < limit:
            return f"{int(seconds / unit)} {word}"
    return f"{int(seconds / 86_400)} d"


def ago(ms: str, now: float) -> str:
    """Return how long ago it was; ``ms``: Redis ms as text, empty for never."""
    return f"{age(max(0.0, now - int(ms) / 1000))} ago" if ms else "never"


def heard_words(item: Heard | None) -> Text:
    """Return how long ago a node was heard, or that it is silenced."""
    if item is None:
        return Text("-")
    if item.silenced_s is not None:
        return Text("silent", "red")
    return Text(age(item.age_s))


def stalled(why: str) -> list[Text]:
    """Return the line that warns of states that stand still; none if they do not."""
    return [Text(f"States stand still: {why}. See `clusterer doctor`.", "bold red")] if why else []


def columns(
    names: Sequence[str], right: Sequence[bool], rows: Sequence[Sequence[Text]], indent: str = ""
) -> list[Text]:
    """Return a heading and the rows as lines, each column as wide as what is in it."""
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
    """Return cells side by side; those that are too long end in an ellipsis."""
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
