"""What the terminal on stdout can show; in a pipe there is none."""

from __future__ import annotations

import os
import shutil
import sys

import click

_NARROWEST = 40


def columns() -> int:
    """Return the terminal's width."""
    return max(shutil.get_terminal_size().columns, _NARROWEST)


def coloured(word: str, colour: str | None) -> str:
    """Return ``word`` in a colour, if colours are wanted (no-color.org) and can be shown."""
    plain = not sys.stdout.isatty() or os.environ.get("NO_COLOR")
    if plain or os.environ.get("TERM", "dumb") in ("dumb", "unknown"):
        return word
    return click.style(word, fg=colour)
