"""Rows of the table as CSV or JSON text. Pure: text in, rows out, and back."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping
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

FORMATS = ("csv", "json")


@dataclass(frozen=True, slots=True)
class FileRow:
    """One row of a file, unchecked."""

    number: int
    """Its line in a CSV file (the heading is line 1), its place from 1 in a JSON list."""
    values: Mapping[str, object]
    """What the file gives, by name of the column."""


def parse(text: str, kind: str = "") -> list[FileRow]:
    """Return the rows; ``kind`` is one of `FORMATS`, or empty to tell by the first character.

    Raises `InvalidArgument` if it is neither, or has columns that do not exist or lacks some.
    """
    text = text.removeprefix("\ufeff")
    kind = kind or ("json" if text.lstrip()[:1] in ("[", "{") else "csv")
    rows = _from_json(text) if kind == "json" else _from_csv(text)
    for row in rows:
        _check_names(row)
    return rows


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
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        heading = [name.strip() for name in next(reader, [])]
        if not heading:
            raise InvalidArgument("the file is empty: its first line must name the columns")
        if len(set(heading)) < len(heading):
            raise InvalidArgument("line 1 names a column twice")
        return [
            FileRow(reader.line_num, _cells(reader.line_num, heading, cells))
            for cells in reader
            if any(cell.strip() for cell in cells)
        ]
    except csv.Error as error:
        raise InvalidArgument(f"line {reader.line_num} is no CSV: {error}") from None


def _cells(line: int, heading: list[str], cells: list[str]) -> dict[str, object]:
    if len(cells) != len(heading):
        raise InvalidArgument(f"line {line} has {len(cells)} cells, the heading {len(heading)}")
    return dict(zip(heading, cells, strict=True))


def _from_json(text: str) -> list[FileRow]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidArgument(f"this is no JSON: {error}") from None
    if not isinstance(found, list) or not all(isinstance(item, dict) for item in found):
        raise InvalidArgument("the JSON must be a list of objects, one for each row")
    return [FileRow(number, _plain(item)) for number, item in enumerate(found, 1)]


def _plain(item: Mapping[str, object]) -> dict[str, object]:
    """Return the values; true and false, which Python takes for 1 and 0, as the words."""
    return {
        name: json.dumps(value) if isinstance(value, bool | list | dict) else value
        for name, value in item.items()
    }


def _check_names(row: FileRow) -> None:
    unknown = [name for name in row.values if name not in (*COLUMNS, "id")]
    if unknown:
        raise InvalidArgument(
            f"row {row.number}: no such column: {', '.join(map(repr, unknown))}; "
            f"there are {', '.join(COLUMNS)}"
        )
    missing = [name for name in REQUIRED if name not in row.values]
    if missing:
        raise InvalidArgument(f"row {row.number}: column {missing[0]!r} is missing")
