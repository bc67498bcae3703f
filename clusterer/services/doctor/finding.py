"""What one check found."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum

_LAST_S = datetime.max.replace(tzinfo=UTC).timestamp() - 1
"""The latest time that can be written."""


class Level(Enum):
    """How bad it is."""

    OK = "ok"
    WARN = "warn"
    """The checked part works, but needs the operator's attention."""
    ERROR = "error"
    """Something does not work, or can lose data."""
    SKIPPED = "skipped"
    """Could not be checked; what keeps it from being is an error of its own."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the doctor's report."""

    check: str
    level: Level
    text: str
    """What is."""
    advice: str = ""
    """What to do about it; empty if nothing has to be done."""


def ok(check: str, text: str) -> Finding:
    """All is well."""
    return Finding(check, Level.OK, text)


def warn(check: str, text: str, advice: str) -> Finding:
    """Return a finding that needs the operator's attention."""
    return Finding(check, Level.WARN, text, advice)


def error(check: str, text: str, advice: str) -> Finding:
    """Something does not work."""
    return Finding(check, Level.ERROR, text, advice)


def skipped(check: str, text: str) -> Finding:
    """Could not be checked."""
    return Finding(check, Level.SKIPPED, text)


def stamp(at: float) -> str:
    """Return a UNIX time as it is written in findings: UTC, whole seconds."""
    return (
        datetime.fromtimestamp(min(at, _LAST_S), UTC)
        .isoformat(timespec="seconds")
        .replace("+00:00", "Z")
    )
