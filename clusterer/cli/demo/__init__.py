"""``clusterer demo``: two instances that replicate, one of which is killed and comes back."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

import click

from clusterer.cli.options import configure_logging


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object as the last line.")
@click.option("--keep", is_flag=True, help="Keep the data directory and print its name.")
@click.option("-v", "--verbose", is_flag=True, help="Show the log lines of the processes.")
@click.pass_context
def demo(ctx: click.Context, as_json: bool, keep: bool, verbose: bool) -> None:
    """Watch two instances replicate, one die and come back.

    The demo needs no configuration and does not use any: it starts a private Redis, an SQLite
    table, two instances A and B, two workers and a scheduler in a temporary directory.
    Ratelimit counters travel both ways. Then the demo kills B; B becomes disabled, starts again
    and is up again. That takes about 20 seconds. The exit code is 0 only if every step was
    observed.
    """
    from clusterer.cli.demo.processes import make_nodes, make_settings
    from clusterer.cli.demo.screen import Screen
    from clusterer.cli.demo.steps import Demo
    from clusterer.runtime.stop import interrupt_on_signals

    configure_logging("ERROR")
    interrupt_on_signals()
    directory = Path(tempfile.mkdtemp(prefix="clusterer-demo-"))
    with ExitStack() as stack:
        if not keep:
            stack.callback(shutil.rmtree, directory, ignore_errors=True)
        screen = Screen(sys.stderr if as_json else sys.stdout, live=not as_json)
        steps = Demo(make_settings(directory), make_nodes(), screen, verbose=verbose)
        with screen.showing():
            steps.run()
        screen.conclude(steps.observed)
        if keep:
            screen.write(f"Kept: {directory} (continue with `clusterer up --data-dir {directory}`)")
        if as_json:
            click.echo(json.dumps(steps.observed.as_json(screen.seconds)))
    ctx.exit(0 if steps.observed.complete else 1)
