"""The forms of times, numbers and colours in the output of all commands."""

from __future__ import annotations

import os
import shutil
import sys
from datetime import datetime

import click

_NARROWEST = 40

COLOURS = {"up": "green", "probing": "yellow", "disabled": "red", "down": "red"}
"""Colours of the states."""


def columns() -> int:
    """Return the terminal's width."""
    return max(shutil.get_terminal_size().columns, _NARROWEST)


def coloured(word: str, colour: str | None) -> str:
    """Return ``word`` in a colour, if the terminal shows colours and NO_COLOR is not set."""
    plain = not sys.stdout.isatty() or os.environ.get("NO_COLOR")
    if plain or os.environ.get("TERM", "dumb") in ("dumb", "unknown"):
        return word
    return click.style(word, fg=colour)


def stamp(at: float) -> str:
    """Return the local date and time of a UNIX time."""
    return datetime.fromtimestamp(at).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def moment(at: float, now: float) -> str:
    """Return the local time of day, with the date unless it is today's."""
    full = stamp(at)
    return full[11:] if full[:10] == stamp(now)[:10] else full


def rate(value: float | None) -> str:
    """Return packets per second in at most 6 characters; ``-`` without a rate."""
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
    """Return the age of an event; ``ms``: time in Redis ms as text, empty for never."""
    return f"{age(max(0.0, now - int(ms) / 1000))} ago" if ms else "never"
