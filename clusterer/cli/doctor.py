"""``clusterer doctor``: the health check of all parts."""

from __future__ import annotations

import json
import sys
import textwrap
from collections import Counter
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from clusterer.cli import text
from clusterer.cli.options import with_context
from clusterer.runtime.logs import plain

if TYPE_CHECKING:
    from clusterer.services import Context
    from clusterer.services.doctor import Finding

_COLOURS = {"ok": "green", "warn": "yellow", "error": "red"}
_INDENT = " " * 8


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object at the end.")
@with_context
def doctor(context: Context, as_json: bool) -> int:
    """Check Redis, table, processes, clocks, addresses, backlog.

    The command prints one line per check: ok, warn, error or skipped, with advice, and changes
    nothing. The exit code is 1 if there is an error, else 0. With the settings of an instance
    (--server-id, --set delivery_queue=...) the command also checks its row and queue.
    """
    from clusterer.services import doctor as service
    from clusterer.services.doctor import Level

    found: list[Finding] = []
    for finding in service.run(context):
        found.append(finding)
        if not as_json:
            click.echo(_line(finding))
    levels = Counter(finding.level for finding in found)
    healthy = not levels[Level.ERROR]
    if as_json:
        checks = [asdict(finding) | {"level": finding.level.value} for finding in found]
        click.echo(json.dumps({"healthy": healthy, "checks": checks}))
    else:
        counts = [f"{levels[level]} {level.value}" for level in Level if levels[level]]
        click.echo(f"{len(found)} checks: {', '.join(counts)}.")
    return 0 if healthy else 1


def described(finding: Finding) -> str:
    """Return the finding in one line."""
    advice = f" -> {finding.advice}" if finding.advice else ""
    return f"{finding.level.value:<7} {finding.check}: {plain(finding.text + advice)}"


def _line(finding: Finding) -> str:
    line, word = described(finding), finding.level.value
    if not sys.stdout.isatty():
        return line
    folded = textwrap.fill(line, text.columns(), subsequent_indent=_INDENT, break_on_hyphens=False)
    return text.coloured(word, _COLOURS.get(word)) + folded.removeprefix(word)
