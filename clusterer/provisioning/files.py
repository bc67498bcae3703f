"""Rows of the table as CSV or JSON text. Pure: text in, rows out, and back."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from clusterer.errors import InvalidArgument

COLUMNS = (
    "cluster_id",
    "machine_id",
    "url",
    "state",
    "last_attempt",
    "failed_attempts",
    "no_tries",
    "duration",
    "description",
)
"""Columns of a file, in their order. Row ids are the database's own and not in it."""

REQUIRED = COLUMNS[:3]

TEXTS = ("url", "description")

_DIGITS = 20
"""Of the longest number that any column holds."""

FORMATS = ("csv", "json")


@dataclass(frozen=True, slots=True)
class FileRow:
    """One row of a file, unchecked."""

    number: int
    """Its line in a CSV file (the heading is line 1), its place from 1 in a JSON list."""
    values: Mapping[str, object]
    """The values of the file, by name of the column."""


def parse(text: str, kind: str = "") -> list[FileRow]:
    """Return the rows; ``kind`` is one of `FORMATS`, or empty to tell by the first character.

    Raises `InvalidArgument` if it is neither, or has columns that do not exist or lacks some.
    """
    text = text.removeprefix("\ufeff")
    kind = kind or ("json" if text.lstrip()[:1] in ("[", "{") else "csv")
    return _from_json(text) if kind == "json" else _from_csv(text)


def render(rows: Iterable[Mapping[str, object]], kind: str) -> str:
    """Return the rows as text that `parse` reads back."""
    chosen = [{name: row[name] for name in COLUMNS} for row in rows]
    if kind == "json":
        return json.dumps(chosen, indent=2, ensure_ascii=False) + "\n"
    out = io.StringIO()
    writer = csv.DictWriter(out, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(chosen)
    return out.getvalue()


def _from_csv(text: str) -> list[FileRow]:
    source = io.StringIO(text, newline="")
    reader = csv.reader(source, strict=True, delimiter=_delimiter(text))
    try:
        heading = next((_names(cells) for cells in reader if any(cells)), [])
        if not heading:
            raise InvalidArgument("the file is empty: its first line must name the columns")
        if len(set(heading)) < len(heading):
            raise InvalidArgument(f"line {reader.line_num} names a column twice")
        _check_names(f"line {reader.line_num}", heading)
        return [
            FileRow(reader.line_num, _cells(reader.line_num, heading, cells))
            for cells in reader
            if any(cell.strip() for cell in cells)
        ]
    except csv.Error as error:
        raise InvalidArgument(f"line {reader.line_num} is no CSV: {error}") from None


def _names(cells: list[str]) -> list[str]:
    """Return the heading's names; spreadsheets write empty cells behind them."""
    names = [name.strip() for name in cells]
    while names and not names[-1]:
        names.pop()
    return names


def _delimiter(text: str) -> str:
    """Return what stands between the heading's names: where decimals have a comma, spreadsheets
    write semicolons.
    """
    heading = text.lstrip().partition("\n")[0]
    return next((mark for mark in ",;\t" if mark in heading), ",")


def _cells(line: int, heading: list[str], cells: list[str]) -> dict[str, object]:
    while len(cells) > len(heading) and not cells[-1].strip():
        cells = cells[:-1]
    if len(cells) != len(heading):
        raise InvalidArgument(f"line {line} has {len(cells)} cells, the heading {len(heading)}")
    return dict(zip(heading, cells, strict=True))


def _from_json(text: str) -> list[FileRow]:
    try:
        found = json.loads(
            text, object_pairs_hook=_once, parse_constant=_no_number, parse_int=_integer
        )
    except (ValueError, RecursionError) as error:
        raise InvalidArgument(f"this is no JSON: {error}") from None
    if not isinstance(found, list) or not all(isinstance(item, dict) for item in found):
        raise InvalidArgument("the JSON must be a list of objects, one for each row")
    for number, item in enumerate(found, 1):
        _check_names(f"row {number}", item)
    return [FileRow(number, _plain(item)) for number, item in enumerate(found, 1)]


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """Return the object; raise `ValueError` if a name occurs twice, with either value."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"an object has {twice!r} twice")
    return found


def _no_number(text: str) -> object:
    raise ValueError(f"{text} is no number")


def _integer(text: str) -> int | str:
    """Return the number; as text, which no column takes for one, if it is absurdly long."""
    return int(text) if len(text) <= _DIGITS else text


def _plain(item: Mapping[str, object]) -> dict[str, object]:
    """Return the values; true and false, which Python takes for 1 and 0, as the words."""
    return {
        name: json.dumps(value) if isinstance(value, bool) and name not in TEXTS else value
        for name, value in item.items()
    }


def _check_names(where: str, names: Collection[str]) -> None:
    unknown = [name for name in names if name not in (*COLUMNS, "id")]
    if unknown:
        raise InvalidArgument(
            f"{where}: no such column: {', '.join(map(repr, unknown))}; "
            f"there are {', '.join(COLUMNS)}"
        )
    missing = [name for name in REQUIRED if name not in names]
    if missing:
        raise InvalidArgument(f"{where}: column {missing[0]!r} is missing")
