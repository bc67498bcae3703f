"""``clusterer ping``: the health check of a process."""

from __future__ import annotations

import click

from clusterer.cli.options import Seconds, with_settings
from clusterer.errors import ClustererError
from clusterer.processes.progress import WITHIN_S, Alive, living
from clusterer.settings import Settings


@click.command()
@click.argument("kind", type=click.Choice(["node", "worker", "scheduler"]), required=False)
@click.option(
    "--within",
    metavar="SECONDS",
    type=Seconds(min=1),
    default=WITHIN_S,
    show_default=True,
    help="Age of the last progress at which a process counts as stuck.",
)
@with_settings()
def ping(settings: Settings, *, kind: str | None, within: float) -> None:
    """Check that this host's processes make progress.

    The exit code is 0 if at least one process runs with this data directory, and none is stuck.
    KIND selects instances, workers or schedulers. The command asks neither Redis nor the
    database: a process that waits for them makes progress.

    \b
        clusterer ping worker --within 60
    """  # noqa: D301 - \b is click's mark for lines to be kept as they are
    found = living(settings, kind or "")
    if not found:
        what = f"{kind} process" if kind else "process"
        raise ClustererError(f"no {what} runs with data_dir {settings.data_path}")
    stuck = [alive for alive in found if alive.age_s > within]
    if stuck:
        raise ClustererError("; ".join(map(described, stuck)) + "; restart the stuck processes")
    for alive in found:
        click.echo(described(alive))


def described(alive: Alive) -> str:
    """Return one process and when it last made progress."""
    return f"{alive.kind} (pid {alive.pid}): last progress {alive.age_s:.0f} s ago"
