"""``clusterer demo``: the command."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from clusterer.cli.demo.observed import Observed
from clusterer.cli.demo.screen import Screen, summary
from clusterer.cli.demo.stage import make_actors, make_settings
from clusterer.cli.demo.story import Story
from clusterer.cli.options import configure_logging
from clusterer.processes import interrupt_on_signals


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout's last line.")
@click.option("--keep", is_flag=True, help="Keep the data directory and say where it is.")
@click.option("-v", "--verbose", is_flag=True, help="Show what the processes log.")
@click.pass_context
def demo(ctx: click.Context, as_json: bool, keep: bool, verbose: bool) -> None:
    """Watch two instances replicate, one die and come back.

    Needs nothing and touches nothing that is configured: starts a private Redis, an SQLite
    table, two instances A and B, two workers and a scheduler in a temporary directory. Then
    ratelimit counters travel both ways, B is killed, found out, disabled, and comes back.
    Takes about 20 seconds. The exit code is 0 only if all of that was really seen.
    """
    configure_logging("ERROR")
    interrupt_on_signals()
    with data_directory(keep=keep) as directory:
        actors = make_actors()
        screen = Screen(sys.stderr if as_json else sys.stdout, actors, live=not as_json)
        story = Story(make_settings(directory), actors, screen, verbose=verbose)
        with screen.showing():
            story.play()
        conclude(screen, story.observed)
        if keep:
            screen.write(f"Kept: {directory} (go on with `clusterer up --data-dir {directory}`)")
        if as_json:
            click.echo(json.dumps(story.observed.as_json(screen.seconds)))
    ctx.exit(0 if story.observed.complete else 1)


def conclude(screen: Screen, observed: Observed) -> None:
    """Print the summary, and for a failure what the processes said last."""
    screen.write()
    screen.write(summary(observed, screen.seconds))
    if observed.complete:
        screen.write("All of it was really observed. Next: `clusterer up`, `clusterer list`.")
        return
    screen.write(f"FAILED: {observed.failure or 'not everything was observed'}")
    for name, lines in observed.logs.items():
        for line in lines:
            screen.write(f"  {name}: {line}")


@contextmanager
def data_directory(*, keep: bool) -> Iterator[Path]:
    """Make a private directory, removed at the end unless it is to be kept."""
    directory = Path(tempfile.mkdtemp(prefix="clusterer-demo-"))
    try:
        yield directory
    finally:
        if not keep:
            shutil.rmtree(directory, ignore_errors=True)
