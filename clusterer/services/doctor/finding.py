"""A finding: the result of one check."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum

from clusterer.runtime.logs import utc

_LAST_S = datetime.max.replace(tzinfo=UTC).timestamp() - 1
"""The latest time that can be written."""


class Level(Enum):
    """Severity of a finding."""

    OK = "ok"
    WARN = "warn"
    """The checked part works, but needs the operator's attention."""
    ERROR = "error"
    """The checked part does not work, or can lose data."""
    SKIPPED = "skipped"
    """Not checked: a requirement of the check is missing, usually an error of its own."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the doctor's report."""

    check: str
    level: Level
    text: str
    """Result of the check."""
    advice: str = ""
    """Next action of the operator; empty if none is necessary."""


def ok(check: str, text: str) -> Finding:
    """Return a finding without a fault."""
    return Finding(check, Level.OK, text)


def warn(check: str, text: str, advice: str) -> Finding:
    """Return a finding that needs the operator's attention."""
    return Finding(check, Level.WARN, text, advice)


def error(check: str, text: str, advice: str) -> Finding:
    """Return a finding about a part that does not work, or can lose data."""
    return Finding(check, Level.ERROR, text, advice)


def skipped(check: str, text: str) -> Finding:
    """Return a finding of a check that was not possible."""
    return Finding(check, Level.SKIPPED, text)


def bounded(found: Sequence[Finding], most: int, advice: str) -> Iterator[Finding]:
    """Yield the first ``most`` findings of a check, and one with the number of the others."""
    yield from found[:most]
    if len(found) > most:
        text = f"and {len(found) - most} more like these"
        yield Finding(found[most].check, found[most].level, text, advice)


def listed(items: Sequence[object], most: int = 3, between: str = ", ") -> str:
    """Return the first ``most`` items as text, and the number of the others."""
    text = between.join(map(str, items[:most]))
    return f"{text} and {len(items) - most} more" if len(items) > most else text


def stamp(at: float) -> str:
    """Return a UNIX time as it is written in findings: UTC, whole seconds."""
    return utc(min(at, _LAST_S), "seconds")
