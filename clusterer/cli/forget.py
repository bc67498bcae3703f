"""``clusterer forget``: delete what Redis keeps of a machine that is gone for good."""

from __future__ import annotations

from contextlib import closing

import click

from clusterer.cli.live.words import age
from clusterer.cli.operator import operator
from clusterer.cli.options import ID, with_settings
from clusterer.services import Context
from clusterer.services.admin import forget as service
from clusterer.services.admin.forget import Forgotten
from clusterer.settings import Settings


@click.command()
@click.argument("machine", type=ID)
@click.option("--reason", metavar="TEXT", default="", help="Why; shown by `clusterer events`.")
@click.option("--force", is_flag=True, help="Forget a machine that is in use, with its packets.")
@click.option("--dry-run", is_flag=True, help="Only say what would be done.")
@with_settings()
def forget(settings: Settings, *, machine: int, reason: str, force: bool, dry_run: bool) -> None:
    """Delete what Redis keeps of a machine_id that is no longer used.

    Its packet log, counters and cursors as a sender, its registrations and clocks as an
    instance. Refused for a machine that is a node, whose instance is alive, or whose packets
    are not all delivered. What a machine without a row has not used for a day, and holds no
    packets, is deleted without this command.
    """
    with closing(Context(settings)) as context:
        done = service.run(
            context, machine, by=operator(), reason=reason, force=force, dry_run=dry_run
        )
    click.echo(f"{'Would forget' if dry_run else 'Forgot'} machine {machine}: {_kept(done)}.")
    for name in done.keys:
        click.echo(f"  {name}")


def _kept(done: Forgotten) -> str:
    lost = f" ({done.undelivered} log entries not delivered)" if done.undelivered else ""
    alive = "never alive" if done.alive_s is None else f"last alive {age(done.alive_s)} ago"
    return f"{done.packets} packets sent{lost}, instance {alive}, {len(done.keys)} keys"
